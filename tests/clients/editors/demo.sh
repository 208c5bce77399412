#!/usr/bin/env bash
# What the recording in docs/agent.md shows; record.py runs it in a project of its own.
set -euo pipefail

alias_="acpx --agent 'cortex acp' --approve-all --no-fs"
agent() { acpx --agent "cortex acp" --approve-all --no-fs --suppress-reads "$@" 2>/dev/null; }

typed() {
  printf '\n\033[1;32m$\033[0m '
  for ((at = 0; at < ${#1}; at++)); do printf '%s' "${1:at:1}"; sleep 0.02; done
  printf '\n'
  sleep 0.3
}

typed "alias agent=\"$alias_\""
typed "cat greeting.txt"
cat greeting.txt
typed "agent sessions new"
agent sessions new
typed "agent prompt 'change the greeting'"
agent prompt "change the greeting"
sleep 1.5
typed "agent set-mode plan"
agent set-mode plan
typed "agent prompt 'plan a farewell'    # plan mode is left by a dialog, which is approved here"
agent prompt "plan a farewell"
sleep 1.5
typed "cat greeting.txt farewell.txt"
cat greeting.txt farewell.txt
typed "agent prompt /undo"
agent prompt /undo
sleep 1
typed "ls"
ls
typed "agent prompt /compact"
agent prompt /compact
sleep 1
typed "agent prompt 'what did we do?'"
agent prompt "what did we do?"
sleep 2
agent sessions close >/dev/null
