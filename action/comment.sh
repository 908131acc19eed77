#!/usr/bin/env bash
# The pull request's one comment of llmdoctor: written where there is something to say, and then kept current.
# A token that may not comment (a pull request from a fork has a read-only one) is a warning: the findings are annotated already.
set -euo pipefail

mark='<!-- llmdoctor -->' # how the markdown report begins
comments=repos/$GITHUB_REPOSITORY/issues/$PULL_REQUEST/comments
refused() {
  echo "::warning title=llmdoctor::the comment could not be written: the token needs pull-requests: write"
  exit 0
}

ours=".[] | select(.user.type == \"Bot\" and (.body | startswith(\"$mark\"))) | .id"
old=$(gh api --paginate "$comments" --jq "$ours" | head -n 1) || refused
if [ -n "$old" ]; then
  gh api --silent --method PATCH "repos/$GITHUB_REPOSITORY/issues/comments/$old" --field "body=@$MARKDOWN" || refused
elif [ "$FINDINGS" != 0 ]; then
  gh api --silent --method POST "$comments" --field "body=@$MARKDOWN" || refused
fi
