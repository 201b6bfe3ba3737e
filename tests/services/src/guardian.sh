# Ends every process that works inside a folder. The servers' working folder is their room, so
# this finds them and whatever they forked, also when their parent is long dead.
#
#   guardian kill FOLDER           now, with SIGKILL
#   guardian watch FOLDER SIGNAL   when our input ends, which is when our owner has ended, in
#                                  whatever way: SIGNAL first, SIGKILL five seconds later; then
#                                  the folder is removed
verb=$1
folder=$2
signal=${3:-KILL}

inside() {
    find /proc -mindepth 2 -maxdepth 2 -name cwd \( -lname "$folder" -o -lname "$folder/*" \) 2>/dev/null | cut -d/ -f3
}

# Sends a signal to all until nobody is left; gives up after so many rounds.
drive_out() {
    rounds=$2
    repeated=$3
    pids=$(inside)
    [ -n "$pids" ] && kill -s "$1" $pids 2>/dev/null
    while pids=$(inside) && [ -n "$pids" ]; do
        rounds=$((rounds - 1))
        [ "$rounds" -gt 0 ] || return 1
        sleep 0.05
        [ "$repeated" = once ] || kill -s "$1" $pids 2>/dev/null
    done
}

case $verb in
kill)
    drive_out KILL 200 again
    ;;
watch)
    # A terminal's Ctrl-C or end must not take us away before our owner.
    trap '' HUP INT TERM
    read -r _
    drive_out "$signal" 100 once || drive_out KILL 200 again
    rm -rf "$folder"
    ;;
esac
