'use strict';
// Curves, and samples through time. All data stands in the page, as JSON.
(() => {
  const element = id => document.getElementById(id);
  const json = node => node ? JSON.parse(node.textContent) : null;

  const chart = json(element('chart'));
  if (chart) drawCurves(chart);
  document.querySelectorAll('.series').forEach(showSeries);

  function drawCurves(chart) {
    const colors = ['#2f7ed8', '#e8762c', '#2ca05a', '#d0393e', '#8e63c7', '#8f5a4c', '#d667b4', '#7f8790', '#a8a81f', '#17a9bd'];
    const dashes = ['solid', 'dash', 'dot', 'dashdot'];
    const settings = [];
    for (const runs of Object.values(chart.metrics))
      for (const run of runs) if (!settings.includes(key(run))) settings.push(key(run));
    const several = settings.length > 1 || Object.values(chart.metrics).some(runs => runs.length > 1);

    function key(run) { return run.setting || run.run; }
    function style(run) {
      const index = settings.indexOf(key(run));
      return {color: colors[index % colors.length], dash: dashes[Math.floor(index / colors.length) % dashes.length], width: 2};
    }
    function faint(color) { return color + '33'; }

    function traces(metric, axis) {
      const found = [], side = axis === 'y2';
      const label = text => several ? (side ? `${text} (${metric})` : text) : metric;
      const mean = element('lines') && element('lines').value === 'settings';
      const drawn = new Set();
      if (mean) for (const one of chart.settings[metric] || []) {
        const line = style(one);
        drawn.add(one.setting);
        found.push({x: [...one.x, ...one.x.slice().reverse()], y: [...one.high, ...one.low.slice().reverse()], fill: 'toself',
                    fillcolor: faint(line.color), line: {width: 0}, mode: 'lines', hoverinfo: 'skip', showlegend: false,
                    legendgroup: key(one), yaxis: axis, type: 'scatter'});
        found.push({x: one.x, y: one.y, mode: one.x.length < 3 ? 'lines+markers' : 'lines', line, yaxis: axis, type: 'scatter',
                    name: label(`${one.setting} (mean of ${one.runs})`), legendgroup: key(one)});
      }
      const legends = new Set();
      for (const run of chart.metrics[metric] || []) {
        if (drawn.has(run.setting)) continue;
        const line = {...style(run)};
        if (side && !several) line.color = colors[1];
        if (side) line.dash = 'dot';
        found.push({x: run.x, y: run.y, mode: run.x.length < 3 ? 'lines+markers' : 'lines', line, yaxis: axis, type: 'scatter',
                    name: label(run.run), legendgroup: key(run)});
        legends.add(key(run));
      }
      return found;
    }

    function layout() {
      const css = getComputedStyle(document.documentElement);
      const color = name => css.getPropertyValue(name).trim();
      const type = element('scale').value;
      const axis = {gridcolor: color('--line'), zerolinecolor: color('--line'), linecolor: color('--line'), automargin: true};
      const from = parseFloat(element('from').value), to = parseFloat(element('to').value);
      const x = {...axis, title: {text: 'step'}};
      if (Number.isFinite(from) && Number.isFinite(to) && to > from) x.range = [from, to];
      return {
        paper_bgcolor: color('--back'), plot_bgcolor: color('--back'), font: {color: color('--text')}, xaxis: x,
        yaxis: {...axis, title: {text: element('metric').value}, type},
        yaxis2: {...axis, title: {text: element('second').value}, type, overlaying: 'y', side: 'right', showgrid: false},
        margin: {l: 50, r: 20, t: 30, b: 40}, showlegend: true, legend: {orientation: 'h', yref: 'container', y: 0, yanchor: 'bottom'}, hovermode: 'closest',
        dragmode: 'zoom'
      };
    }

    function draw() {
      const second = element('second').value;
      const data = traces(element('metric').value, 'y');
      if (second) data.push(...traces(second, 'y2'));
      const columns = innerWidth > 900 ? 2 : 1, lines = data.filter(trace => trace.showlegend !== false).length;
      element('plot').style.height = `${Math.min(340 + 29 * Math.ceil(lines / columns), 1000)}px`;
      return Plotly.react('plot', data, layout(), {responsive: true, displaylogo: false, modeBarButtons: [
        ['toImage', 'zoom2d', 'pan2d', 'zoomIn2d', 'zoomOut2d', 'resetScale2d']]});
    }

    for (const id of ['metric', 'second', 'lines', 'scale', 'from', 'to'])
      if (element(id)) element(id).addEventListener('change', draw);
    element('whole').addEventListener('click', () => {
      element('from').value = element('to').value = '';
      draw();
    });
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);
    Promise.resolve(draw()).then(() => {
      element('plot').on('plotly_relayout', change => {
        if (change['xaxis.range[0]'] === undefined) return;
        element('from').value = Math.round(change['xaxis.range[0]']);
        element('to').value = Math.round(change['xaxis.range[1]']);
      });
      element('plot').on('plotly_doubleclick', () => { element('from').value = element('to').value = ''; });
    });
    fillEnds(chart);
  }

  function fillEnds(chart) {
    const body = element('ends').tBodies[0];
    const named = element('ends').tHead.rows[0].cells.length > 6;
    const shown = value => value === undefined ? 'not finite' : String(value);
    for (const [metric, runs] of Object.entries(chart.metrics)) for (const run of runs) {
      const row = body.insertRow(), values = run.y.filter(value => value !== null);
      const least = values.reduce((a, b) => Math.min(a, b), Infinity), greatest = values.reduce((a, b) => Math.max(a, b), -Infinity);
      const bounds = values.length ? [least, greatest] : [undefined, undefined];
      for (const text of [metric, ...(named ? [run.run] : []), run.x.length, shown(values[0]), shown(values[values.length - 1]), ...bounds.map(shown)])
        row.insertCell().textContent = text;
    }
  }

  function showSeries(series) {
    const slider = series.querySelector('input[type=range]');
    if (!slider) return;
    const large = series.querySelector('.large'), output = series.querySelector('output');
    const figures = [...series.querySelectorAll('.strip figure')];
    const steps = json(series.querySelector('.steps'));
    const items = steps ? steps.map((step, index) => ({step, content: figures[index].querySelector('img').src}))
      : json(series.querySelector('.items'));
    const label = series.querySelector('h4').textContent, kind = series.dataset.kind;
    const spectrogram = series.querySelector('.spectrogram');
    const button = series.querySelector('.through');
    let timer = null;

    function show(index) {
      const item = items[index];
      slider.value = index;
      slider.setAttribute('aria-valuetext', `step ${item.step}`);
      output.textContent = item.step;
      if (kind === 'text') large.textContent = item.content; else large.src = item.content;
      if (kind === 'picture') large.alt = `${label} at step ${item.step}`;
      if (spectrogram && item.spectrogram) spectrogram.src = item.spectrogram;
      figures.forEach((figure, at) => figure.classList.toggle('chosen', at === index));
    }
    function stop() {
      clearInterval(timer);
      timer = null;
      button.setAttribute('aria-pressed', 'false');
    }
    slider.addEventListener('input', () => { stop(); show(Number(slider.value)); });
    figures.forEach((figure, index) => figure.addEventListener('click', () => { stop(); show(index); }));
    button.addEventListener('click', () => {
      if (timer) return stop();
      button.setAttribute('aria-pressed', 'true');
      let index = Number(slider.value) === items.length - 1 ? 0 : Number(slider.value);
      show(index);
      timer = setInterval(() => { index += 1; if (index >= items.length) return stop(); show(index); }, 400);
    });
    show(items.length - 1);
  }
})();
