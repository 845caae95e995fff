# The unmodified PyPI package "riak" 2.7.0 in an environment of its own (sourced; sets CLIENT_PYTHON).
# It runs on Python 2.7 and 3.6 only: PYTHON picks one. Installed on first use into $CLIENTS_DIR (default: riak-clients in
# the temporary folder). Returns 2 when there is no such Python.

base=${CLIENTS_DIR:-${TMPDIR:-/tmp}/riak-clients}
py=${PYTHON:-}
if [ -z "$py" ]; then
    for c in python2.7 python3.6 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/2.7*/bin/python2.7 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.6*/bin/python3.6; do
        if "$c" -c 'import sys' >/dev/null 2>&1; then py=$c; break; fi
    done
fi
[ -n "$py" ] || { echo "no Python 2.7 or 3.6 found; set PYTHON" >&2; return 2; }
v=$("$py" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
env=$base/py$v
mkdir -p "$base"
if ! "$env/bin/python" -c 'import riak' >/dev/null 2>&1; then
    rm -rf "$env"
    if [ "$v" = 2.7 ]; then
        # the last virtualenv that can make a 2.7 environment; its pip also resolves old build requirements right
        python3 -m pip install -q --disable-pip-version-check --target "$base/virtualenv" 'virtualenv<20.22' >"$base/install.log" 2>&1
        PYTHONPATH="$base/virtualenv" python3 -m virtualenv -q -p "$py" "$env" >>"$base/install.log" 2>&1
    else
        "$py" -m venv "$env" >"$base/install.log" 2>&1
    fi
    "$env/bin/python" -m pip install -q riak==2.7.0 pytz >>"$base/install.log" 2>&1 || { cat "$base/install.log" >&2; return 2; }
fi
CLIENT_PYTHON=$env/bin/python
