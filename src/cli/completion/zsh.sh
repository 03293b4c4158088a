#compdef flock-agent
# Completes flock-agent in zsh; made by `flock-agent completion zsh`.

# The words that can follow these.
_flock-agent-words() {
    local -a found
    case "$1" in
@words@
    esac
    _describe command found
}

_flock-agent() {
    local typed="${(j: :)words[2,CURRENT-1]}" command=
    local -a arguments named
    case "$typed " in
@commands@
    esac
    named=(${(z)command})
    if [[ -z $command && $typed$words[CURRENT] == -* ]]; then
        command=@daemon@
    fi
    case "$command" in
@arguments@
    *)
        _flock-agent-words "$typed"
        return
        ;;
    esac
    words=(flock-agent "${(@)words[$#named+2,-1]}")
    (( CURRENT -= $#named ))
    _arguments -S $arguments
}

# Found by its name in a directory of functions, or read by `source`.
if [[ $funcstack[1] == _flock-agent ]]; then
    _flock-agent "$@"
else
    compdef _flock-agent flock-agent
fi
