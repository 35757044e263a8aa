/* Programs from texts; see script.h. Owns the private files under the spool directory until they are handed on. */
#include "script.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"

/* Linux takes at most 128 KiB in one argument; the rest is left to names and quotes around it. */
enum { ARGUMENT_MAX = 100 << 10 };

static int file_make(struct server *server, const char *text, size_t n, char **out)
{
	AUTO_FREE char *name = NULL;
	if (asprintf(&name, "%s/sandboxd-XXXXXX", server->spool_dir) < 0) {
		name = NULL;
		return -ENOMEM;
	}
	AUTO_FD int fd = mkostemp(name, O_CLOEXEC);
	if (fd < 0)
		return -errno;
	for (size_t done = 0; done < n;) {
		ssize_t part = write(fd, text + done, n - done);
		if (part < 0 && errno == EINTR)
			continue;
		if (part <= 0) {
			int err = part < 0 ? -errno : -EIO;
			unlink(name);
			return err;
		}
		done += (size_t)part;
	}
	*out = steal(name);
	return 0;
}

/* The words of `#!interpreter argument`, as the kernel reads them: the argument is all the rest of the line. */
static int interpreter_make(struct script *s, const char *text)
{
	const char *line = text + 2;
	s->words = strndup(line, strcspn(line, "\n"));
	if (!s->words)
		return -ENOMEM;
	char *end = s->words + strlen(s->words);
	while (end > s->words && strchr(" \t\r", end[-1]))
		*--end = '\0';
	char *word = s->words + strspn(s->words, " \t");
	if (!*word)
		return 0;
	char *argument = word + strcspn(word, " \t");
	if (*argument) {
		*argument++ = '\0';
		argument += strspn(argument, " \t");
	}
	s->argv[0] = word;
	s->argv[1] = *argument ? argument : s->file;
	s->argv[2] = *argument ? s->file : NULL;
	s->has_interpreter = true;
	return 0;
}

int script_make(struct server *server, const char *text, size_t n, struct script *out)
{
	*out = (struct script){.argv = {server->shell, "-c", text, NULL}};
	bool named = n >= 2 && text[0] == '#' && text[1] == '!';
	if (n <= ARGUMENT_MAX && !named)
		return 0;
	int err = file_make(server, text, n, &out->file);
	if (err < 0)
		return err;
	out->argv[1] = out->file;
	out->argv[2] = NULL;
	return named ? interpreter_make(out, text) : 0;
}

void script_release(struct script *s)
{
	free(s->words);
	s->words = NULL;
}

void script_remove(char **file)
{
	if (!*file)
		return;
	/* A command may remove its own script: nothing is left to do then. */
	(void)unlink(*file);
	free(*file);
	*file = NULL;
}

int script_environment(const struct buf *b, const char ***out)
{
	size_t count = 0;
	for (size_t at = 0; at < b->size; at += strlen(b->data + at) + 1)
		count++;
	const char **env = calloc(count + 1, sizeof *env);
	if (!env)
		return -ENOMEM;
	size_t i = 0;
	for (size_t at = 0; at < b->size; at += strlen(b->data + at) + 1)
		env[i++] = b->data + at;
	*out = env;
	return 0;
}
