# Completes flock-agent in bash; made by `flock-agent completion bash`.

# The words that can follow these.
_flock_agent_words() {
    case "$1" in
@words@
    esac
}

_flock_agent() {
    local IFS=$' \t\n' word words= flags= command=
    local current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} typed="${COMP_WORDS[*]:1:COMP_CWORD-1}"
    COMPREPLY=()
    # The shell takes --flag=value for three words.
    if [ "$current" = = ]; then
        current=
    elif [ "$before" = = ]; then
        before=${COMP_WORDS[COMP_CWORD - 2]}
    fi
    case "$typed " in
@commands@
    esac
    # The shell itself completes names of files, as it knows of quotes and tildes.
    case "$command $before" in
@values@
    *)
        if [[ $current == -* ]]; then
            for word in $flags; do
                [[ " $typed " == *" $word "* ]] || words+=" $word"
            done
        elif [ -z "$command" ] || [ -z "$typed" ]; then
            words=$(_flock_agent_words "$typed")
        else
            case "$command" in
@operands@
            esac
        fi
        ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}

complete -F _flock_agent flock-agent
