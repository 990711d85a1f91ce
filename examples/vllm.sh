#!/usr/bin/env bash
# vLLM: one base model, two specialities; each request says by its model name which one answers.
set -euo pipefail
cd "$(dirname "$0")"
MODEL=${MODEL:-HuggingFaceTB/SmolLM2-135M-Instruct} OUT=${OUT:-../out/vllm} EXTRA=${EXTRA:-}

for domain in creative-writing education; do
  burnish enhance "$MODEL" --domain $domain --form adapter -o "$OUT/$domain" --overwrite $EXTRA
done
[ -n "$EXTRA" ] && exit

# The rank of a learnt adapter is its number of directions (4), rounded up to one that vLLM knows.
vllm serve "$MODEL" --enable-lora --max-loras 2 --max-lora-rank 8 --port 8000 \
  --lora-modules creative="$OUT/creative-writing" education="$OUT/education" &
SERVER=$!
trap 'kill $SERVER 2> /dev/null || true' EXIT
until curl -sf localhost:8000/health > /dev/null; do sleep 2; done
for name in "$MODEL" creative education; do
  curl -s localhost:8000/v1/chat/completions -H 'Content-Type: application/json' \
    -d '{"model": "'"$name"'", "max_tokens": 64, "messages": [{"role": "user", "content": "What is rain?"}]}'
done
