# Completes flock-agent in fish; made by `flock-agent completion fish`.

# Whether these words are all that is typed before the one at the cursor.
function __flock_agent_typed
    set -l typed (commandline -opc)
    test "$typed[2..]" = "$argv"
end

# Whether this is the command.
function __flock_agent_is
    set -l typed (commandline -opc)
    string match -q -- "$argv *" "$typed[2..] "
end

# Whether a flag comes first, so that the daemon is meant.
function __flock_agent_flags
    set -l typed (commandline -opc) (commandline -ct)
    string match -q -- '-*' "$typed[2]"
end

complete -c flock-agent -f
@lines@
