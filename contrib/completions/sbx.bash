# Completion of sbx for bash: commands, sandboxes, processes, ports, files. All of it comes from sbx itself.
# Words are compared here: compgen -W would run what a word holds.
_sbx_among() { # BEGINNING WORDS
	local word list
	read -r -d '' -a list <<<"$2"
	for word in "${list[@]}"; do
		[[ $word != "$1"* ]] || COMPREPLY+=("$word")
	done
}
_sbx() {
	local cur=${COMP_WORDS[COMP_CWORD]} command=${COMP_WORDS[1]-} words='' i
	COMPREPLY=()
	if ((COMP_CWORD == 1)); then
		words='ls new exec run ps logs kill wait shell code expose unexpose ports cp path save restore events destroy help'
		_sbx_among "$cur" "$words"
		return
	fi
	# behind -- stands a command of the sandbox
	for ((i = 2; i < COMP_CWORD; i++)); do
		if [[ ${COMP_WORDS[i]} == -- ]]; then
			mapfile -t COMPREPLY < <(compgen -f -- "$cur")
			return
		fi
	done
	case $command in
	ls) words=-q ;;
	exec) words="-- -c -w -e -t -i -S $(sbx ls -q 2>/dev/null)" ;;
	run) words="-- -n -p -w -e -t $(sbx ls -q 2>/dev/null)" ;;
	ps) words="-q $(sbx ls -q 2>/dev/null)" ;;
	logs) words="-f $(sbx ps -q 2>/dev/null) $(sbx ls -q 2>/dev/null)" ;;
	kill) words="-a -TERM -INT -KILL $(sbx ps -q 2>/dev/null) $(sbx ls -q 2>/dev/null)" ;;
	wait) words="$(sbx ps -q 2>/dev/null) $(sbx ls -q 2>/dev/null)" ;;
	unexpose) words="$(sbx ports 2>/dev/null | cut -d ' ' -f 1) $(sbx ls -q 2>/dev/null)" ;;
	destroy) words="-f $(sbx ls -q 2>/dev/null)" ;;
	code) words='-l -k' ;;
	shell | expose | ports | path | save | restore | events | cp) words=$(sbx ls -q 2>/dev/null) ;;
	esac
	case ${COMP_WORDS[COMP_CWORD - 1]} in
	-l) words='python javascript typescript' ;;
	esac
	_sbx_among "$cur" "$words"
	case $command in
	code | cp | save | restore)
		local files
		mapfile -t files < <(compgen -f -- "$cur")
		COMPREPLY+=("${files[@]}")
		compopt -o filenames 2>/dev/null
		;;
	esac
}
complete -F _sbx sbx
