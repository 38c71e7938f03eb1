#!/usr/bin/env bash
# Installs AISBench into a virtual environment, once: the mark holds the names of the wheels and the source that it was made
# from. The environment sees what the engine's image has (torch, transformers), so that only the rest has to come.
#
# install.env beside it sets what it works with:
#   home    where the environment is made
#   wheels  folder of wheels
#   source  AISBench's sources, or a requirement for pip; empty: the wheels hold it
#   index   address of a package index; empty: nothing is fetched
#   cure    what to do where AISBench is missing
set -e
home='' wheels='' source='' index='' cure=''
# shellcheck source=/dev/null
. ./install.env
echo '== install AISBench'
given=$({ ls -l "$wheels" 2> /dev/null || true; echo "source $source $index"; } | sha256sum)
if [ -x "$home/venv/bin/python" ] && [ "$(cat "$home/installed" 2> /dev/null)" = "$given" ]; then
    exit 0
fi
if [ -z "$source$index" ] && ! compgen -G "$wheels/ais_bench_benchmark-*" > /dev/null; then
    echo "MISSING: AISBench. Neither is there ais_bench_benchmark-*.whl in $wheels, nor is accuracy_source or accuracy_index set."
    echo "MISSING: $cure"
    exit 3
fi
from=(--no-index)
if [ -n "$index" ]; then
    # AISBench wants numpy below 2, and does not say which pyarrow goes with that.
    echo 'pyarrow<20' > constraints.txt
    from=(-c constraints.txt)
    # In the environment, as it may hold a password, and every user of the server can read a command line.
    export PIP_INDEX_URL="$index"
fi
if [ -d "$wheels" ]; then
    from+=(--find-links "$wheels")
fi
rm -rf "$home/venv" "$home/installed"
python3 -m venv --without-pip --system-site-packages "$home/venv"
"$home/venv/bin/python" -m pip install --no-input --disable-pip-version-check "${from[@]}" "${source:-ais_bench_benchmark}"
echo "$given" > "$home/installed"
