/* Globs; see glob.h. Pure functions, without recursion: a pattern from outside costs no stack. */
#include "glob.h"

#include <stddef.h>
#include <string.h>

bool glob_match(const char *pattern, const char *text)
{
	/* Where to go on when what follows the last star (or double star) does not fit. */
	const char *star = NULL, *star_text = NULL, *deep = NULL, *deep_text = NULL;
	bool directories = false;
	for (;;) {
		if (pattern[0] == '*' && pattern[1] == '*') {
			pattern += 2;
			/* `**` with its slash stands for whole directories, or none. */
			directories = *pattern == '/';
			if (directories)
				pattern++;
			deep = pattern;
			deep_text = text;
			star = NULL;
			continue;
		}
		if (*pattern == '*') {
			star = ++pattern;
			star_text = text;
			continue;
		}
		if (!*pattern && !*text)
			return true;
		if (*text && *pattern && (*pattern == *text || (*pattern == '?' && *text != '/'))) {
			pattern++;
			text++;
			continue;
		}
		if (star && *star_text && *star_text != '/') {
			pattern = star;
			text = ++star_text;
			continue;
		}
		if (!deep || !*deep_text)
			return false;
		if (directories && !(deep_text = strchr(deep_text, '/')))
			return false;
		pattern = deep;
		text = ++deep_text;
		star = NULL;
	}
}

bool glob_covers(const char *pattern, const char *path)
{
	bool whole = strchr(pattern, '/') != NULL;
	char part[4096];
	if (pattern[0] == '/')
		pattern++;
	for (const char *start = path; *start;) {
		const char *end = start + strcspn(start, "/");
		const char *from = whole ? path : start;
		size_t n = (size_t)(end - from);
		/* Longer paths than the kernel takes do not come. */
		if (n >= sizeof part)
			return false;
		memcpy(part, from, n);
		part[n] = '\0';
		if (glob_match(pattern, part))
			return true;
		start = *end ? end + 1 : end;
	}
	return false;
}

bool glob_is_plain(const char *pattern)
{
	return !strpbrk(pattern, "[]{}");
}
