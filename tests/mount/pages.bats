# The manual says what the programs do: every name of every `help` is in sandboxfs-ctl(5), every option in its page.
load ../lib/harness

page() { man -l "$repo/contrib/man/$1" 2>/dev/null | col -bx; }
# in_page PAGE-FILE WORD: the word stands in it as one.
in_page() { grep -qE -- "(^|[^A-Za-z0-9_.-])$(sed 's/[][\.*^$+?(){}|/]/\\&/g' <<<"$2")([^A-Za-z0-9_-]|$)" "$1"; }

@test "sandboxfs-ctl(5) has every name that help has in every directory" {
	local d first left missing='' looked=0
	command -v man >/dev/null || skip 'no man here'
	MANWIDTH=200 page sandboxfs-ctl.5 >"$T/page"
	mkdir "$C/processes/p"
	echo true >"$C/processes/p/cmd"
	x true >/dev/null
	# what makes objects of the other sets is there when their rooms are
	for d in sessions code ws pty; do
		case $d in pty) left=new ;; *) left=p ;; esac
		[ ! -d "$C/$d" ] || [ "$left" = new ] || mkdir "$C/$d/p" 2>/dev/null || :
	done
	while read -r d; do
		cat "$d/help" >"$T/help"
		looked=$((looked + 1))
		# names begin a line, what goes with one is indented; NAME/x is x of an object
		while read -r first; do
			first=${first%/} first=${first##*/}
			case $first in [A-Z]*) continue ;; esac
			in_page "$T/page" "$first" || missing="$missing $d:$first"
		done < <(sed -n '1,/^$/!s/^\([^ ][^ ]*\) .*/\1/p' "$T/help")
		# verbs
		while read -r first; do
			in_page "$T/page" "$first" || missing="$missing $d:$first"
		done < <(sed -n '1,/^$/!s/^  *\([a-z][a-z-]*\).*/\1/p' "$T/help")
	done < <(echo "$MNT/ctl"; find "$C" -type d)
	[ -z "$missing" ] || { echo "not in the page:$missing"; return 1; }
	echo "$looked directories"
	((looked > 15))
	grep -q '^ctl ' "$T/help" || grep -q . "$T/help"
}

@test "sandboxfs(1) has every option of --help, and none that is not there" {
	local name
	command -v man >/dev/null || skip 'no man here'
	MANWIDTH=200 page sandboxfs.1 >"$T/page"
	"$sandboxfs" --help >"$T/help"
	sed -n 's/^  \([a-z_-]*\)[= ].*/\1/p; s/^  \(-[a-zV-]*\).*/\1/p' "$T/help" | grep -v '^-*$' | sort -u >"$T/options"
	[ "$(wc -l <"$T/options")" -gt 20 ]
	while read -r name; do
		in_page "$T/page" "$name" || { echo "not in the page: $name"; return 1; }
	done <"$T/options"
	# the tags of the page's list
	while read -r name; do
		grep -qxF -- "$name" "$T/options" || { echo "in the page alone: $name"; return 1; }
	done < <(awk '/DUR.* is/ { on = 1 } /^.SH/ { on = 0 } on && tag { print } { tag = /^\.TP/ }' "$repo/contrib/man/sandboxfs.1" |
		sed 's/\\fB\(\([a-z_]\|\\-\)*\).*/\1/; s/\\-/-/g')
}

@test "sandboxd(8) has every option of --help, sbx(1) every command of sbx help" {
	local name names
	command -v man >/dev/null || skip 'no man here'
	MANWIDTH=200 page sandboxd.8 >"$T/page"
	names=$("$sandboxd" --help | grep -oE -- '--[a-z-]+')
	for name in $names; do
		in_page "$T/page" "$name" || { echo "not in sandboxd(8): $name"; return 1; }
	done
	MANWIDTH=200 page sbx.1 >"$T/page"
	names=$("$repo/contrib/sbx/sbx" help | sed -n 's/^  \([a-z][a-z]*\) .*/\1/p')
	[[ $names == *exec* ]]
	for name in $names; do
		grep -qE "^ +$name( |$|,)" "$T/page" || { echo "not in sbx(1): $name"; return 1; }
	done
}

@test "the pages are clean for groff and mandoc" {
	local p
	command -v mandoc >/dev/null || skip 'no mandoc here'
	for p in "$repo"/contrib/man/*; do
		[ -z "$(mandoc -T lint "$p")" ] || { mandoc -T lint "$p"; return 1; }
		[ -z "$(man --warnings -l "$p" 2>&1 >/dev/null)" ] || { man --warnings -l "$p" 2>&1 >/dev/null; return 1; }
	done
}
