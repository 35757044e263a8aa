/*
 * What is left out of an archive: globs, and what git ignores; see tar.h. Owns nothing.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "commands.h"
#include "tar.h"
#include "text.h"

enum { GIT_MS = 60000, GLOBS_MAX = 256 };

static void list_free(char **list)
{
	for (char **s = list; s && *s; s++)
		free(*s);
	free(list);
}

void tar_filter_release(struct tar_filter *f)
{
	list_free(f->globs);
	list_free(f->paths);
	*f = (struct tar_filter){NULL, NULL};
}

int tar_filter_glob(struct tar_filter *f, const char *glob)
{
	size_t n = 0;
	while (f->globs && f->globs[n])
		n++;
	if (n == GLOBS_MAX)
		return -E2BIG;
	char **globs = realloc(f->globs, (n + 2) * sizeof *globs);
	if (!globs)
		return -ENOMEM;
	f->globs = globs;
	globs[n + 1] = NULL;
	globs[n] = strdup(glob);
	return globs[n] ? 0 : -ENOMEM;
}

static int order(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Names that end with NUL, as a sorted list. Directories end with a slash, which goes. */
static int take_paths(struct tar_filter *f, const struct buf *b)
{
	size_t count = 0, i = 0;
	for (size_t at = 0; at < b->size; at += strlen(b->data + at) + 1)
		count++;
	char **paths = calloc(count + 1, sizeof *paths);
	if (!paths)
		return -ENOMEM;
	for (size_t at = 0; at < b->size; at += strlen(b->data + at) + 1) {
		size_t n = strlen(b->data + at);
		while (n && b->data[at + n - 1] == '/')
			n--;
		paths[i] = strndup(b->data + at, n);
		if (!paths[i++]) {
			list_free(paths);
			return -ENOMEM;
		}
	}
	qsort(paths, count, sizeof *paths, order);
	list_free(f->paths);
	f->paths = paths;
	return 0;
}

int tar_filter_gitignore(struct server *server, const char *dir, struct tar_filter *f)
{
	static const char ask[] =
		"exec git ls-files -z --others --ignored --exclude-standard --directory";
	struct command_spec spec = {
		.text = ask, .size = sizeof ask - 1, .cwd = dir, .timeout_ms = GIT_MS};
	struct command *c;
	AUTO_BUF b = BUF_INIT;
	int err = commands_start(server->commands, &spec, EXISTS_REPLACE, &c, NULL);
	if (err < 0)
		return err;
	int state = command_wait_output(c, SPOOL_BOTH, UINT64_MAX, text_monotonic_ms() + 2 * GIT_MS);
	/* No git, or no repository: then nothing is ignored. */
	if (state == 0 && c->exit_code == 0)
		err = command_output(c, SPOOL_STDOUT, UINT64_MAX, &b);
	if (!err)
		err = buf_error(&b);
	if (!err && b.size)
		err = take_paths(f, &b);
	(void)commands_forget(server->commands, c->id); /* -EBUSY: it goes with its end */
	commands_put(c);
	return err;
}
