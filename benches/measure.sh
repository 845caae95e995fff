# For scripts that measure a server from outside (sourced by bash). Linux only: what a process reads, writes and takes is in /proc.
# OMBAK is the program.

# A value of the JSON that `ombak bench` prints.
json_number() { # name
    sed -nE "s/^ *\"$1\": ([0-9.e-]+),?$/\1/p"
}

# What /proc/PID/io counts: read_bytes and write_bytes went to the disk, rchar came from any file, cached or not.
io_counter() { # pid name
    sed -n "s/^$2: //p" "/proc/$1/io"
}

# Memory in bytes: VmRSS, or VmHWM, the most since `reset_peak`.
memory_bytes() { # pid name
    awk -v name="$2:" '$1 == name { print $2 * 1024 }' "/proc/$1/status"
}

# Fails where the system does not let it; then the peak is that of the process's life.
reset_peak() { # pid
    echo 5 2>/dev/null >"/proc/$1/clear_refs"
}

disk_bytes() { # directory
    # Files may go while they are counted.
    { du -s --block-size=1 "$1" 2>/dev/null || true; } | cut -f1
}

free_bytes() { # directory
    df --output=avail --block-size=1 "$1" | tail -1
}

# One line for each thread: its number, its name without the number at its end, and its processor time in ticks. In the end the
# time of the whole process, which is also that of threads that have ended, as number 0.
thread_times() { # pid
    local numbers='([-0-9]+ ){10}([0-9]+) ([0-9]+) .*'
    { cat "/proc/$1"/task/*/stat 2>/dev/null || true; } |
        sed -E "s/^([0-9]+) \((.*)\) . $numbers/\1\t\2\t\4\t\5/" |
        awk -F'\t' -v OFS='\t' '{ sub(/[ :#-]*[0-9]+$/, "", $2); print $1, $2, $3 + $4 }'
    sed -E "s/^[0-9]+ \(.*\) . $numbers/\2 \3/" "/proc/$1/stat" | awk -v OFS='\t' '{ print 0, "", $1 + $2 }'
}

# Between two files that `thread_times` wrote: the seconds of the whole process, then each group of threads with its part of them.
thread_parts() { # before after
    awk -F'\t' -v tick="$(getconf CLK_TCK)" '
        NR == FNR { before[$1] = $3; next }
        $1 == 0 { all = $3 - before[0]; next }
        { part[$2] += $3 - before[$1]; known += $3 - before[$1] }
        END {
            printf "%.2f", all / tick
            if (all > known) part["ended or without a name"] += all - known
            for (name in part) if (part[name] > 0) printf "\t%s\t%.3f", name, part[name] / all
            printf "\n"
        }' "$1" "$2"
}

# A number that `ombak status` tells, by what follows it; nothing where this Ombak does not tell it.
status_counter() { # data directory, what follows
    "$OMBAK" --data-dir "$1" status | sed -nE "s/^(.*[^0-9])?([0-9]+) $2.*/\2/p" | head -1
}

# The fewest requests in a second of a series, as part of the mean; nothing for a series without a whole second.
slowest_second() { # series
    awk -F, 'NR > 1 { sum += $2; seconds++; if (seconds == 1 || $2 < least) least = $2 }
        END { if (sum > 0) printf "%.3f\n", least / (sum / seconds) }' "$1"
}

# Has servers that start from now on take no more memory than this for their store. A program that does not know of it would only look
# as if it kept to it.
use_memory() { # script, bytes or nothing
    [ -n "$2" ] || return 0
    if ! "$OMBAK" config show | grep -q '^store_memory_bytes_max'; then
        echo "$1: $OMBAK has no store_memory_bytes_max" >&2
        return 2
    fi
    export OMBAK_STORE_MEMORY_BYTES_MAX=$2
}
