#!/usr/bin/env bash
# The pull request's one comment of llmdoctor: written where there is something to say, and then kept current.
set -euo pipefail

mark='<!-- llmdoctor -->' # how the markdown report begins
comments=repos/$GITHUB_REPOSITORY/issues/$PULL_REQUEST/comments
old=$(gh api --paginate "$comments" --jq ".[] | select(.body | startswith(\"$mark\")) | .id" | head -n 1)
if [ -n "$old" ]; then
  gh api --silent --method PATCH "repos/$GITHUB_REPOSITORY/issues/comments/$old" --field "body=@$MARKDOWN"
elif [ "$FINDINGS" != 0 ]; then
  gh api --silent --method POST "$comments" --field "body=@$MARKDOWN"
fi
