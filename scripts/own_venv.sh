# shellcheck shell=sh
# To be sourced: own_venv NAME HINT [IMPORT] makes .run/NAME/venv from requirements/NAME.txt, and anew when that changes. Its
# path is then $venv. HINT says where the packages exist; a module IMPORT must be found there.
own_venv() {
  venv=.run/$1/venv
  own_stamp="$(pwd -P) $(.venv/bin/python -V) $(cksum <"requirements/$1.txt")"
  if [ "$(cat "$venv/stamp" 2>/dev/null)" = "$own_stamp" ]; then return; fi
  printf '%s: making %s, which takes a minute the first time\n' "$1" "$venv" >&2
  .venv/bin/python -m venv --clear "$venv"
  "$venv/bin/python" -m pip --quiet --disable-pip-version-check --no-input install --require-hashes --only-binary :all: \
    --no-compile -r "requirements/$1.txt" || own_venv_fails "$1" "pip could not install requirements/$1.txt; its reason \
stands above. $2"
  if [ -n "${3:-}" ]; then
    "$venv/bin/python" -c "import $3" || own_venv_fails "$1" "there is no $3 here, for which the reason stands above. $2"
  fi
  printf '%s\n' "$own_stamp" >"$venv/stamp"
}
own_venv_fails() { printf '%s: %s\n' "$1" "$2" >&2 && exit 1; }
