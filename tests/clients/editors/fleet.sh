#!/usr/bin/env bash
# What the recording in README.md shows; record.py runs it in a folder of its own.
set -euo pipefail

typed() {
  printf '\n\033[1;32m$\033[0m '
  for ((at = 0; at < ${#1}; at++)); do printf '%s' "${1:at:1}"; sleep 0.02; done
  printf '\n'
  sleep 0.3
}

typed "cortex up &"
cortex up --data-dir data >up.txt 2>&1 &
trap 'kill -INT %1; wait' EXIT
until grep -q "curl " up.txt; do sleep 0.2; done
head -n 9 up.txt
sleep 1.5
typed "cortex status"
cortex status
sleep 1.5
typed "cortex chat 'Say hello in one short sentence.'"
cortex chat "Say hello in one short sentence."
sleep 1
typed "curl -s http://127.0.0.1:31313/v1/embeddings -d '{\"model\": \"all-minilm-l6-v2\", …}' | cut -c1-96    # loads it"
curl -s http://127.0.0.1:31313/v1/embeddings -H 'content-type: application/json' \
  -d '{"model": "all-minilm-l6-v2", "input": ["cat", "feline"]}' | cut -c1-96
sleep 1
typed "cortex models"
cortex models
sleep 1.5
typed "cortex usage --by model"
cortex usage --by model
sleep 2.5
