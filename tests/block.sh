#!/usr/bin/env bash
# Prints the block of a document that begins with these words, for a test that runs it unchanged.
#
#   tests/block.sh DOCUMENT WORDS
awk -v words="$2" '
  /^```/ { is_inside = !is_inside; opened = NR; next }
  is_inside && NR == opened + 1 { is_wanted = index($0, words) == 1; is_found = is_found || is_wanted }
  is_inside && is_wanted
  END { exit !is_found }
' "$1" || { echo "$1 has no block that begins with: $2" >&2; exit 1; }
