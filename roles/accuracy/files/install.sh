#!/usr/bin/env bash
# Installs AISBench into a virtual environment, once: the file `installed` holds a hash of the wheels and the source that it was
# installed from. The environment includes the packages of the engine's image (torch, transformers), so that only the rest is
# installed.
#
# install.env beside it sets the variables:
#   home    folder of the virtual environment
#   wheels  folder of wheels
#   source  AISBench's sources, or a requirement for pip; empty: the wheels contain it
#   index   URL of a package index; empty: nothing is downloaded
#   cure    what to do if AISBench is missing
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
    echo "MISSING: AISBench. There is no ais_bench_benchmark-*.whl in $wheels, and neither accuracy_source nor accuracy_index is set."
    echo "MISSING: $cure"
    exit 3
fi
from=(--no-index)
if [ -n "$index" ]; then
    # AISBench requires numpy below 2, but does not pin a pyarrow that works with it.
    echo 'pyarrow<20' > constraints.txt
    from=(-c constraints.txt)
    # In the environment, because it may hold a password and every user of the server can read a command line.
    export PIP_INDEX_URL="$index"
fi
if [ -d "$wheels" ]; then
    from+=(--find-links "$wheels")
fi
rm -rf "$home/venv" "$home/installed"
python3 -m venv --without-pip --system-site-packages "$home/venv"
"$home/venv/bin/python" -m pip install --no-input --disable-pip-version-check "${from[@]}" "${source:-ais_bench_benchmark}"
echo "$given" > "$home/installed"
