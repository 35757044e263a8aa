# Completion of sbx for fish: commands, sandboxes, processes, ports, files. All of it comes from sbx itself.

function __sbx_sandboxes
	sbx ls -q 2>/dev/null
end
function __sbx_processes
	sbx ps -q 2>/dev/null
end
function __sbx_ports
	sbx ports 2>/dev/null | string replace -r ' .*' ''
end
function __sbx_is
	set -l words (commandline -opc)
	test (count $words) -gt 1; and contains -- $words[2] $argv; and not contains -- -- $words
end

complete -c sbx -f
complete -c sbx -n __fish_use_subcommand -a ls -d 'sandboxes and how they are'
complete -c sbx -n __fish_use_subcommand -a new -d 'make or adopt one'
complete -c sbx -n __fish_use_subcommand -a exec -d 'run a command'
complete -c sbx -n __fish_use_subcommand -a run -d 'start a process'
complete -c sbx -n __fish_use_subcommand -a ps -d processes
complete -c sbx -n __fish_use_subcommand -a logs -d 'what a process printed'
complete -c sbx -n __fish_use_subcommand -a kill -d 'end a process'
complete -c sbx -n __fish_use_subcommand -a wait -d 'wait for the end of a process'
complete -c sbx -n __fish_use_subcommand -a shell -d 'a terminal'
complete -c sbx -n __fish_use_subcommand -a code -d 'run code'
complete -c sbx -n __fish_use_subcommand -a expose -d 'open a port'
complete -c sbx -n __fish_use_subcommand -a unexpose -d 'close a port'
complete -c sbx -n __fish_use_subcommand -a ports -d 'open ports'
complete -c sbx -n __fish_use_subcommand -a cp -d 'copy files'
complete -c sbx -n __fish_use_subcommand -a path -d 'its workspace here'
complete -c sbx -n __fish_use_subcommand -a save -d 'the workspace as a tar'
complete -c sbx -n __fish_use_subcommand -a restore -d 'unpack a tar'
complete -c sbx -n __fish_use_subcommand -a events -d 'what changes'
complete -c sbx -n __fish_use_subcommand -a destroy -d 'end a sandbox'
complete -c sbx -n __fish_use_subcommand -a help -d 'how it is called'

complete -c sbx -n '__sbx_is exec run ps logs kill wait shell expose unexpose ports cp path save restore events destroy' -a '(__sbx_sandboxes)' -d sandbox
complete -c sbx -n '__sbx_is logs kill wait' -a '(__sbx_processes)' -d process
complete -c sbx -n '__sbx_is unexpose' -a '(__sbx_ports)' -d port
complete -c sbx -n '__sbx_is code cp save restore' -F
complete -c sbx -n '__sbx_is ls ps' -s q -d 'names alone'
complete -c sbx -n '__sbx_is logs' -s f -d 'to its end'
complete -c sbx -n '__sbx_is kill' -s a -d all
complete -c sbx -n '__sbx_is destroy' -s f -d 'also with unsent writes'
complete -c sbx -n '__sbx_is exec run' -s w -r -d 'in that directory'
complete -c sbx -n '__sbx_is exec run' -s e -r -d 'NAME=VALUE'
complete -c sbx -n '__sbx_is exec run' -s t -r -d 'its time-out'
complete -c sbx -n '__sbx_is exec' -s i -d 'with the standard input'
complete -c sbx -n '__sbx_is exec' -s c -r -d 'shell text'
complete -c sbx -n '__sbx_is exec' -s S -r -d 'in that session'
complete -c sbx -n '__sbx_is run' -s n -r -d 'its id'
complete -c sbx -n '__sbx_is run' -s p -r -d 'wait for that port'
complete -c sbx -n '__sbx_is code' -s l -r -a 'python javascript typescript' -d language
complete -c sbx -n '__sbx_is code' -s k -r -d context
