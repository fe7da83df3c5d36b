#!/bin/bash
# Trains one run on all workers of a TPU VM slice: installs genjax on each, mounts the shared folder, starts one process each.
#
#   TPU=my-slice ZONE=us-east5-a NFS=10.0.0.2:/runs ./tpu_vm.sh --config=configs/diffusion/cifar10_flow.py:model=XL --workdir=/runs/flow
#
# Arguments are those of `genjax train`. NFS is a file system that all workers can write, such as Filestore; it is mounted at
# /runs, where --workdir must be. SOURCE is what pip installs, by default this folder's repository, copied to the workers.
# Run it again to go on from the last checkpoint.
set -euo pipefail

if [[ -z ${TPU:-} || -z ${ZONE:-} || -z ${NFS:-} || $# -eq 0 ]]; then
  echo 'usage: TPU=NAME ZONE=ZONE NFS=HOST:/PATH tpu_vm.sh --config=FILE --workdir=/runs/DIR [flags of genjax train]' >&2
  exit 2
fi

everywhere() {
  gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all --command="$1"
}

if [[ -z ${SOURCE:-} ]]; then
  SOURCE=genjax-source
  gcloud compute tpus tpu-vm scp --recurse "$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)" "$TPU:$SOURCE" \
    --zone="$ZONE" --worker=all
fi

everywhere "set -e
mountpoint -q /runs || { sudo apt-get install -qq -y nfs-common && sudo mkdir -p /runs && sudo mount -t nfs '$NFS' /runs; }
[ -d venv ] || python3 -m venv venv
venv/bin/pip install -q '${SOURCE}[tpu]'"

# The arguments once more in quotes, for the shell of the worker.
arguments=$(printf ' %q' "$@")
everywhere "cd ${SOURCE} 2> /dev/null || true
TFDS_DATA_DIR=/runs/.data JAX_COMPILATION_CACHE_DIR=/runs/.compiled ~/venv/bin/genjax train${arguments}"
