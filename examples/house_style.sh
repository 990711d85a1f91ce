#!/usr/bin/env bash
# The style of a folder of texts (.txt, .md): bash house_style.sh FOLDER. Without one, that of this project's own pages.
set -euo pipefail
cd "$(dirname "$0")"
MODEL=${MODEL:-smollm2-135m} OUT=${OUT:-../out/house-style} EXTRA=${EXTRA:-}
TEXTS=${1:-../docs}

python3 house_style.py "$TEXTS" "$OUT-rows"

# No prompt describes the style: some of the texts, shown as examples, are the teacher.
burnish enhance "$MODEL" --enhance "$OUT-rows/questions.txt" --references "$OUT-rows/references.jsonl" \
  -o "$OUT" --form adapter --overwrite $EXTRA
[ -n "$EXTRA" ] && exit

burnish chat "$MODEL" --with "$OUT" --compare --prompt "Explain how to write a good bug report." --tokens 96
