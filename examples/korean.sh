#!/usr/bin/env bash
# Korean: a packaged speciality, and a system prompt of your own. 한국어 모델을 권합니다.
set -euo pipefail
cd "$(dirname "$0")"
MODEL=${MODEL:-smollm2-135m} OUT=${OUT:-../out/korean} EXTRA=${EXTRA:-}

burnish enhance "$MODEL" --domain creative-writing-ko -o "$OUT" --overwrite $EXTRA
[ -n "$EXTRA" ] && exit
burnish chat "$MODEL" --with "$OUT" --compare --prompt "비 오는 날의 바다를 묘사해 줘." --tokens 96

# Everyday prompts that are held are Korean too, because the expert's prompt is.
burnish enhance "$MODEL" --expert "당신은 친절한 동네 서점 주인입니다. 짧고 따뜻하게 답하고, 책 한 권을 권한 뒤 질문으로 끝냅니다." \
  -o "$OUT-expert" --form adapter --overwrite
burnish chat "$MODEL" --with "$OUT-expert" --compare --prompt "요즘 읽을 만한 책이 있을까요?" --tokens 96
