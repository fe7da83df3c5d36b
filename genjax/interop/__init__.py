"""Import and export of public weights: folders in the layout of Hugging Face's `transformers`, safetensors only.

    model = interop.load('path/of/a/llama')                       # network, params, mutable, config, ...
    logits_BTV, _ = model.network.apply(model.params, model.mutable, tokens_BT)
    interop.save('path/of/a/copy', model)                         # what `transformers` loads

The inputs and outputs of the networks are documented in `genjax.models.transformers.decoder.transformer` (GPT-2, LLaMA,
Mistral), `genjax.models.transformers.bert.encoder` (BERT), `genjax.models.transformers.vit.encoder` (ViT),
`genjax.models.transformers.clip.encoder` (CLIP), `genjax.models.transformers.seq2seq.seq2seq` (Marian, T5, Whisper),
`genjax.models.features.inception.network` and `genjax.models.features.lpips.network`.
"""

from genjax.interop.weights import Description, Model, architecture_of, describe, load, save

__all__ = ['Description', 'Model', 'architecture_of', 'describe', 'load', 'save']
