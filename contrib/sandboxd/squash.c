/* Archives as squashfs; see squash.h. */
#include "squash.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "commands.h"
#include "text.h"

static const char maker[] = "/usr/bin/mksquashfs", unpacker[] = "/usr/bin/unsquashfs";

bool squash_wanted(const char *archive)
{
	static const char end[] = ".sqsh";
	size_t n = strlen(archive);
	return n >= sizeof end && strcmp(archive + n - strlen(end), end) == 0 &&
		   access(maker, X_OK) == 0;
}

bool squash_can_unpack(void)
{
	return access(unpacker, X_OK) == 0;
}

/* Runs a line with this as its input. 0; -EIO: it failed, and *why is what it said. */
static int run(struct server *server, const struct buf *line, const struct buf *input, char **why)
{
	struct command_spec spec = {.text = line->data,
		.size = line->size,
		.cwd = "/",
		.input = input->data,
		.input_size = input->size,
		.timeout_ms = -1};
	struct command *c;
	AUTO_BUF said = BUF_INIT;
	if (buf_error(line) < 0 || buf_error(input) < 0)
		return -ENOMEM;
	int err = commands_start(server->commands, &spec, EXISTS_REPLACE, &c, NULL);
	if (err < 0)
		return err;
	while (command_wait_output(c, SPOOL_BOTH, UINT64_MAX, text_monotonic_ms() + 60000) != 0)
		continue;
	if (c->exit_code != 0) {
		err = -EIO;
		if (command_output(c, SPOOL_STDERR, UINT64_MAX, &said) == 0 && said.size)
			*why = buf_steal(&said);
	}
	(void)commands_forget(server->commands, c->id); /* -EBUSY: it goes with its end */
	commands_put(c);
	return err;
}

static void add_line(struct buf *b, const char *before, const char *line)
{
	buf_str(b, before);
	buf_str(b, line);
	buf_char(b, '\n');
}

/* A glob is meant at any depth; of ** the program knows nothing. */
static void add_glob(struct buf *b, const char *glob)
{
	AUTO_BUF one = BUF_INIT;
	while (strncmp(glob, "**/", 3) == 0)
		glob += 3;
	size_t n = strlen(glob);
	while (n > 3 && memcmp(glob + n - 3, "/**", 3) == 0)
		n -= 3;
	for (size_t i = 0; i < n; i++)
		if (glob[i] != '*' || i == 0 || glob[i - 1] != '*')
			buf_char(&one, glob[i]);
	if (!one.size || buf_error(&one) < 0 || strchr(one.data, '\n'))
		return;
	add_line(b, "", one.data);
	add_line(b, "... ", one.data);
}

/* A path is itself; one with a newline cannot be said, and stays in the archive. */
static void add_path(struct buf *b, const char *path)
{
	AUTO_BUF one = BUF_INIT;
	for (const char *p = path; *p; p++) {
		if (strchr("*?[]\\!()@+", *p))
			buf_char(&one, '\\');
		buf_char(&one, *p);
	}
	if (one.size && !buf_error(&one) && !strchr(one.data, '\n'))
		add_line(b, "", one.data);
}

int squash_create(struct server *server, const char *dir, const char *archive,
	const struct tar_filter *filter, enum tar_compression compression, char **why)
{
	AUTO_BUF line = BUF_INIT, excludes = BUF_INIT;
	const char *word = compression == TAR_ZSTD ? "zstd" : compression == TAR_LZ4 ? "lz4" : "gzip";
	for (char **s = filter->globs; s && *s; s++)
		add_glob(&excludes, *s);
	for (char **s = filter->paths; s && *s; s++)
		add_path(&excludes, *s);
	buf_printf(&line, "exec %s ", maker);
	buf_shell_quote(&line, dir);
	buf_char(&line, ' ');
	buf_shell_quote(&line, archive);
	buf_printf(&line, " -comp %s -no-progress -noappend", word);
	if (excludes.size)
		buf_str(&line, " -wildcards -ef /dev/stdin");
	return run(server, &line, &excludes, why);
}

struct unpacking {
	struct server *server;
	const char *archive;
};

static int unpack(void *arg, int root, const char *where, struct tar_result *result)
{
	const struct unpacking *u = arg;
	AUTO_BUF line = BUF_INIT, nothing = BUF_INIT;
	(void)root;
	buf_printf(&line, "exec %s -n -q -f -d ", unpacker);
	buf_shell_quote(&line, where);
	buf_char(&line, ' ');
	buf_shell_quote(&line, u->archive);
	return run(u->server, &line, &nothing, &result->why);
}

int squash_replace(
	struct server *server, const char *archive, const char *dir, struct tar_result *result)
{
	struct unpacking u = {server, archive};
	return tar_replace_by(unpack, &u, dir, result);
}
