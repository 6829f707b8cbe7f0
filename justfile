# What people and CI run. `./dev RECIPE` works on a machine with nothing but Python; with just installed, `just RECIPE` does.

set positional-arguments

export PATH := justfile_directory() / ".venv/bin" + ":" + env("PATH")

# List the recipes
_default:
    @{{ just_executable() }} --justfile {{ quote(justfile()) }} --list --unsorted

# Make .venv from the locked requirements, or bring it up to date
_venv:
    @./dev --venv

# Without words, in Docker Compose where an engine answers, else as local processes; either can be forced.
# Start everything: `up`, `up local`, `up docker [SERVICE…]`
[no-exit-message]
up *ARGS:
    @scripts/run.sh up "$@"

# Stop what `up` started
[no-exit-message]
down:
    @scripts/run.sh down

# Say what runs, and where
[no-exit-message]
status:
    @scripts/run.sh status

# Show the ends of the logs: `logs`, `logs envoy`, `logs -f extauth-1`
[no-exit-message]
logs *ARGS:
    @scripts/run.sh logs "$@"

# Ask as each of the three tiers, on each of the three routes, and compare what came with what should
[no-exit-message]
demo:
    @scripts/test.sh

# Run the tests: `test`, `test tests/e2e -k tier`; `test --cov` also measures branch coverage
[no-exit-message]
test *ARGS: _venv
    @pytest "$@"

# Run the tests on another Python, which uv finds or fetches: `python 3.13`, `python 3.14 tests/limiter`
[no-exit-message]
python VERSION *ARGS: _venv
    @scripts/python.sh "$@"

# Beside another commit, by CPU in turns: `bench --beside main`, `bench --beside HEAD~1 --rounds 11 hot one`
# With metrics and without: `bench metrics`, `bench metrics --rounds 11 keys_10000`
# Measure side by side on loopback, and write docs/benchmarks.md: `bench`, `bench --quick hot`, `bench --json FILE`
[no-exit-message]
bench *ARGS: _venv
    @python -m bench "$@"

# Measure beside envoyproxy/ratelimit and Limitador: `peers --ratelimit PATH --limitador PATH`, `--write` for docs/benchmarks.md
[no-exit-message]
peers *ARGS: _venv
    @python -m bench.peers "$@"

# Run h2spec against the gRPC listener, in clear and over TLS
[no-exit-message]
h2spec *ARGS: _venv
    @python -m scripts.h2spec "$@"

# Fuzz what reads clients' bytes, a minute a target: `fuzz`, `fuzz --seconds 600 frames`; of frames, blocks, messages, calls_in_json
[no-exit-message]
fuzz *ARGS: _venv
    @scripts/fuzz.sh "$@"

# Make small mistakes and see whether the tests notice: `mutants`, `mutants lua`, `mutants python --sample 500 --seed 1`
[no-exit-message]
mutants *ARGS: _venv
    @scripts/mutants.sh "$@"

# Let hostile clients at the stack, beside honest ones: `adversary`, `adversary --short`, `adversary resets_5k --bare`
[no-exit-message]
adversary *ARGS: _venv
    @python -m adversary "$@"

# Cause faults of the store, the replicas and the config under load: `chaos`, `chaos frozen_3s killed`, `chaos --policy deny`
chaos *ARGS: _venv
    @python -m chaos "$@"

# Run the limiter, breaker, local counting and batches in simulated time, with faults: `simulate --schedules 500 --seed 7`
[no-exit-message]
simulate *ARGS: _venv
    @python -m simulation "$@"

# Write deploy/kubernetes anew, from the chart
[no-exit-message]
manifests: _venv
    @scripts/kubernetes.sh --write

# Make the descriptors that gRPC reflection serves anew, from the packages that the script names
[no-exit-message]
descriptors: _venv
    @uv run --quiet --no-project --script scripts/reflection_descriptors.py

# Draw the README's pictures of the dashboard from a stack of its own: three minutes
[no-exit-message]
pictures: _venv
    @python -m scripts.pictures

# Take the README's pictures of the live page from a stack of its own: seven minutes
[no-exit-message]
screenshot: _venv
    @python -m scripts.screenshot

# Run every static check: lint, format, types, imports, and the configuration of each part
[no-exit-message]
check: _venv
    @scripts/check.sh

# Format the code, and mend what the linter can mend
fmt: _venv
    ruff check --fix-only
    ruff format

# Lock the dependencies anew: `lock`, `lock --upgrade`
lock *ARGS: _venv
    requirements/lock.sh "$@"
