#!/usr/bin/env bash
# llama.cpp: an enhanced .gguf file, and a LoRA beside the untouched one whose strength each request sets.
set -euo pipefail
cd "$(dirname "$0")"
OUT=${OUT:-../out/llama-cpp} EXTRA=${EXTRA:-}
GGUF=${GGUF:-$(burnish models pull smollm2-135m --gguf | tail -n 1)}
mkdir -p "$OUT"

burnish enhance "$GGUF" --domain creative-writing -o "$OUT/enhanced.gguf" --overwrite $EXTRA
[ -n "$EXTRA" ] && exit
llama-cli -m "$OUT/enhanced.gguf" -no-cnv -n 64 -p "Describe an old lighthouse at dusk."

# A direction once, then a LoRA of a fixed strength made from this very file's weights.
burnish find "$GGUF" --domain creative-writing -o "$OUT/direction.safetensors" --overwrite
burnish apply "$GGUF" "$OUT/direction.safetensors" --enhancement-factor 0.5 --layers 50%.. \
  --form gguf-lora -o "$OUT/creative.gguf" --overwrite
llama-server -m "$GGUF" --lora "$OUT/creative.gguf" --lora-init-without-apply --port 8080 &
SERVER=$!
trap 'kill $SERVER 2> /dev/null || true' EXIT
until curl -sf localhost:8080/health > /dev/null; do sleep 1; done
for scale in 0 0.5 1; do
  curl -s localhost:8080/completion -d '{"prompt": "The sea", "n_predict": 32, "lora": [{"id": 0, "scale": '$scale'}]}'
done
