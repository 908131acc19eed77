#!/usr/bin/env bash
# One step of a GitHub workflow: installs llmdoctor from this action's own checkout, checks, annotates, and writes reports and outputs.
# By hand: GITHUB_ACTION_PATH=. RUNNER_TEMP=/tmp/a GITHUB_OUTPUT=/tmp/a/out GITHUB_STEP_SUMMARY=/tmp/a/summary.md bash action/check.sh
#
# The working directory is the repository under review, which may be a stranger's. Python never runs in it with the directory on its import
# path: it is started in another directory or with -I, or as a console script, whose first path is that of the script.
set -euo pipefail

action=$(cd "$GITHUB_ACTION_PATH" && pwd)
tool=$(mkdir -p "$RUNNER_TEMP/llmdoctor" && cd "$RUNNER_TEMP/llmdoctor" && pwd)
reports=$tool/reports
rm -rf "$reports" # of a step before this one
mkdir -p "$reports"
if ! [ -x "$tool/venv/bin/llmdoctor" ]; then
  (cd "$tool" && "$(command -v python3 || command -v python)" -I -m venv "$tool/venv" &&
    "$tool/venv/bin/python" -I -m pip install --quiet --disable-pip-version-check "$action")
fi

# Words are separated by blanks; nothing in them is expanded or run.
read -r -d '' -a paths <<< "${LLMDOCTOR_PATHS:-.}" || true
read -r -d '' -a more <<< "${LLMDOCTOR_ARGS:-}" || true
[ -z "${LLMDOCTOR_FAIL_ON:-}" ] || more+=(--fail-on "$LLMDOCTOR_FAIL_ON")

code=0
"$tool/venv/bin/llmdoctor" check "${paths[@]}" "${more[@]}" --format github --format "json:$reports/report.json" \
  --format "sarif:$reports/report.sarif" --format "markdown:$reports/report.md" --format "html:$reports/report.html" --format "junit:$reports/junit.xml" || code=$?

"$tool/venv/bin/python" -I "$action/action/outputs.py" "$reports" "$code" >> "$GITHUB_OUTPUT"
[ ! -f "$reports/report.md" ] || cat "$reports/report.md" >> "$GITHUB_STEP_SUMMARY"
[ "$code" -ne 3 ] || exit 0 # nothing to check is no failure of the change under review
exit "$code"
