/*
 * Changes as a server tells them: see events_told.h.
 *
 * A reader undoes the \ooo of a path and puts it behind that of the workspace, so what counts is what it says then.
 */
#include "events_told.h"

#include <errno.h>
#include <string.h>

#include "cleanup.h"
#include "shown.h"

enum { TYPE_MAX = 16 };

static bool is_octal(char c, char last)
{
	return c >= '0' && c <= last;
}

/* The path that the n bytes at p stand for. 0, -EPROTO or -ENOMEM. */
static int read_path(const char *p, size_t n, struct buf *out)
{
	for (const char *end = p + n; p < end;) {
		const char *escape = memchr(p, '\\', (size_t)(end - p));
		size_t plain = (size_t)((escape ? escape : end) - p);

		buf_add(out, p, plain);
		p += plain;
		if (!escape)
			break;
		if (end - p < 4 || !is_octal(p[1], '3') || !is_octal(p[2], '7') || !is_octal(p[3], '7'))
			return -EPROTO;
		buf_char(out, (char)((p[1] - '0') << 6 | (p[2] - '0') << 3 | (p[3] - '0')));
		p += 4;
	}
	return buf_error(out);
}

static int check_path(const char *p, size_t n)
{
	AUTO_BUF path = BUF_INIT;
	int err = read_path(p, n, &path);

	if (err)
		return err;
	if (!path.size || memchr(path.data, 0, path.size) || *path.data == '/')
		return -EPROTO;
	for (const char *at = path.data; *at; at += strspn(at, "/")) {
		size_t size = strcspn(at, "/");
		if (size == 2 && memcmp(at, "..", 2) == 0)
			return -EPROTO;
		at += size;
	}
	return 0;
}

int events_told_add(const char *line, size_t n, struct buf *out)
{
	const char *end = line + n, *at = line;
	int paths = 0;

	if (!n || *--end != '\n')
		return -EPROTO;
	while (at < end && *at >= 'a' && *at <= 'z')
		at++;
	if (at == line || at - line > TYPE_MAX)
		return -EPROTO;
	for (; at < end; paths++) {
		if (*at++ != '\t' || paths == 2)
			return -EPROTO;
		const char *tab = memchr(at, '\t', (size_t)(end - at));
		size_t size = (size_t)((tab ? tab : end) - at);
		int err = check_path(at, size);
		if (err)
			return err;
		at += size;
	}
	if (!paths)
		return -EPROTO;
	for (at = line; at <= end;) {
		const char *tab = memchr(at, '\t', (size_t)(end - at));
		size_t size = (size_t)((tab ? tab : end) - at);
		shown_add(out, at, size, SHOWN_KEEP);
		at += size;
		buf_char(out, *at++);
	}
	return buf_error(out);
}
