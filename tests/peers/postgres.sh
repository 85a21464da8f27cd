#!/usr/bin/env bash
# A PostgreSQL server for tests, on a unix socket in a directory of its own. It lives as long as this script's standard
# input is open, so it ends with the process that started it, however that ends.
#
#   tests/peers/postgres.sh [SETTING=VALUE...]
#
# First line of output: the URL of the server with DATABASE for a database (there is `postgres`). Then each line of input is a command, answered with
# "ok": restart (as an administrator does), crash (SIGKILL to all of it, then a start with recovery), stop, start.
set -euo pipefail

bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n1)
[ -n "$bin" ] || { echo "postgres.sh: no PostgreSQL: run tests/peers/install.sh postgres" >&2; exit 1; }

root=$(mktemp -d "${TMPDIR:-/tmp}/layeryard-postgres.XXXXXX")
data=$root/data
# Nothing of this may reach the command stream or the test's terminal.
log=$root/log

# The server refuses to run as root.
as_postgres() {
    if [ "$(id -u)" -eq 0 ]; then
        setpriv --reuid postgres --regid postgres --clear-groups env HOME="$root" "$@"
    else
        "$@"
    fi </dev/null >>"$log" 2>&1
}

pg_ctl() { as_postgres "$bin/pg_ctl" --pgdata "$data" --silent --wait --timeout 60 --log "$root/server.log" "$@"; }

kill_all() {
    local postmaster
    postmaster=$(head -n1 "$data/postmaster.pid")
    # Its children first: an orphan that still holds the shared memory would keep the next server from starting.
    pkill -KILL -P "$postmaster" || true
    kill -KILL "$postmaster"
    while kill -0 "$postmaster" 2>/dev/null; do sleep 0.05; done
    rm -f "$data/postmaster.pid"
}

cleanup() {
    [ ! -e "$data/postmaster.pid" ] || pg_ctl stop --mode immediate || true
    rm -rf "$root"
}
trap cleanup EXIT
trap 'exit 1' INT TERM HUP

: >"$log"
if [ "$(id -u)" -eq 0 ]; then chown -R postgres "$root"; fi
chmod 755 "$root"
as_postgres "$bin/initdb" --pgdata "$data" --auth trust --username layeryard --encoding UTF8 --locale C --no-sync ||
    { cat "$log" >&2; exit 1; }
{
    echo "listen_addresses = ''"
    echo "unix_socket_directories = '$root'"
    echo "max_connections = 200"
    # Tests crash servers, never this machine.
    echo "fsync = off"
    for setting in "$@"; do echo "${setting%%=*} = '${setting#*=}'"; done
} >>"$data/postgresql.conf"
pg_ctl start || { cat "$log" "$root/server.log" >&2; exit 1; }
echo "postgres://layeryard@localhost/DATABASE?host=$root"

while read -r command; do
    case $command in
        restart) pg_ctl restart --mode fast ;;
        crash) kill_all && pg_ctl start ;;
        stop) pg_ctl stop --mode fast ;;
        start) pg_ctl start ;;
        *) echo "postgres.sh: unknown command $command" >&2; exit 1 ;;
    esac
    echo ok
done
