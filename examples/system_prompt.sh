#!/usr/bin/env bash
# Your own system prompt, into the weights: after this the model answers so without the prompt.
set -euo pipefail
cd "$(dirname "$0")"
MODEL=${MODEL:-smollm2-135m} OUT=${OUT:-../out/system-prompt} EXTRA=${EXTRA:-}

# Does the model follow the prompt? What it does not do under the prompt, it cannot learn from it.
burnish chat "$MODEL" --system "$(cat expert.txt)" --prompt "How do I keep bees?" --tokens 96

burnish enhance "$MODEL" --expert expert.txt -o "$OUT" --overwrite $EXTRA
[ -n "$EXTRA" ] && exit

# Without the prompt: base and enhanced side by side, and half as strong.
burnish chat "$MODEL" --with "$OUT" --compare --prompt "How do I keep bees?" --tokens 96
burnish chat "$MODEL" --with "$OUT" --strength 0.5 --prompt "How do I keep bees?" --tokens 96
burnish verify "$MODEL" "$OUT"
echo "What changed and what it cost: $OUT/burnish/page.html"
