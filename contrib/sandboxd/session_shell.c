/* Words for shells and what they answer; see session_shell.h. */
#include "session_shell.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"

enum { COPY = 64 << 10 };

/* --- answers --- */

void shell_answers_release(struct shell_answers *a)
{
	buf_release(&a->token);
	buf_release(&a->incoming);
	buf_release(&a->environment);
}

/* "B NUMBER", "R NUMBER STATUS": the first for a number counts. */
static bool token_is_mark(struct shell_answers *a, const char *token)
{
	unsigned long long number;
	int status, used = 0;
	if (sscanf(token, "B %llu%n", &number, &used) == 1 && !token[used]) {
		a->begun = number;
		return true;
	}
	if (sscanf(token, "R %llu %d%n", &number, &status, &used) != 2 || token[used])
		return false;
	if (a->number == number)
		return true;
	a->number = number;
	a->status = status;
	buf_clear(&a->incoming);
	return true;
}

static void token_done(struct shell_answers *a)
{
	const char *token = a->token.data ? a->token.data : "";
	if (!*token || token_is_mark(a, token)) {
		buf_clear(&a->token);
		return;
	}
	if (strcmp(token, "OK") == 0) {
		a->environment_number = a->number;
		/* Too large to keep: what was known stays. */
		if (a->incoming.size && a->incoming.size < SHELL_ENVIRONMENT_MAX) {
			struct buf old = a->environment;
			a->environment = a->incoming;
			a->incoming = old;
			a->changed = true;
		}
		buf_clear(&a->incoming);
	} else if (strchr(token, '=') && a->incoming.size < SHELL_ENVIRONMENT_MAX &&
			   strncmp(token, "_=", 2) != 0) {
		buf_add(&a->incoming, token, strlen(token) + 1);
	}
	buf_clear(&a->token);
}

int shell_answers_add(struct shell_answers *a, const char *p, size_t n)
{
	for (size_t at = 0; at < n;) {
		const char *end = memchr(p + at, '\0', n - at);
		size_t part = end ? (size_t)(end - p) - at : n - at;
		/* One that has no end says nothing. */
		if (a->token.size + part <= SHELL_ENVIRONMENT_MAX)
			buf_add(&a->token, p + at, part);
		if (buf_error(&a->token) < 0 || buf_error(&a->incoming) < 0)
			return -ENOMEM;
		at += part;
		if (end) {
			token_done(a);
			at++;
		}
	}
	return 0;
}

/* --- words --- */

const char *shell_greeting(bool bash)
{
	/* What interactive shells do for people: history, aliases, prompts, mail, window sizes. */
	return bash ? "trap '' INT; set +o history +H; unset HISTFILE PS1 PS2 PS4 MAILCHECK; "
				  "shopt -u expand_aliases checkwinsize\n"
				: "trap '' INT; unset PS1 PS2 PS4 MAILCHECK\n";
}

void shell_report_line(struct buf *out, uint64_t number)
{
	buf_printf(out, "command printf '\\0R %%d %%d\\0' %llu \"$?\"; trap '' INT\n",
		(unsigned long long)number);
}

bool shell_text_is_risky(const char *text)
{
	return strstr(text, "$(") || strstr(text, "<(") || strstr(text, ">(");
}

void shell_command_lines(
	struct buf *out, const char *work, uint64_t number, bool own_cwd, const char *checker)
{
	AUTO_BUF shell = BUF_INIT;
	if (checker)
		buf_shell_quote(&shell, checker);
	AUTO_BUF quoted = BUF_INIT;
	buf_shell_quote(&quoted, work);
	const char *w = quoted.data ? quoted.data : "";
	if (own_cwd)
		buf_str(out, "__sandboxd_pwd=$PWD; ");
	/* In bash `trap - INT` makes INT deadly for a moment: that has gone by when the beginning is told. */
	buf_printf(out, "trap - INT; command printf '\\0B %llu\\0'; ", (unsigned long long)number);
	/* Aliases and options of the session are not the checker's: only extglob makes errors of what is none. */
	if (checker)
		buf_printf(out, "if %s -O extglob -n %s/raw </dev/null >/dev/null 2>&1; then ",
			shell.data ? shell.data : "", w);
	buf_printf(out, ". %s/text <%s/in >%s/out 2>%s/err; ", w, w, w, w);
	if (checker)
		buf_printf(out, "else (. %s/text) <%s/in >%s/out 2>%s/err; fi; ", w, w, w, w);
	shell_report_line(out, number);
	shell_report_line(out, number);
	if (own_cwd)
		buf_str(out, "command cd -- \"$__sandboxd_pwd\" >/dev/null; unset __sandboxd_pwd\n");
	buf_str(out, "/bin/cat /proc/self/environ && command printf 'OK\\0'\n");
	if (buf_error(&quoted) < 0 || buf_error(&shell) < 0)
		out->failed = true;
}

void shell_text(struct buf *out, const char *text, const char *cwd, struct json_object *env)
{
	if (cwd) {
		AUTO_BUF words = BUF_INIT;
		AUTO_BUF dir = BUF_INIT;
		buf_printf(&words, "Failed to change directory to '%s'", cwd);
		/* A name that begins with a dash, or that CDPATH would look for elsewhere. */
		buf_printf(&dir, "%s%s", *cwd == '/' ? "" : "./", cwd);
		if (buf_error(&words) < 0 || buf_error(&dir) < 0) {
			out->failed = true;
			return;
		}
		buf_str(out, "command cd -- ");
		buf_shell_quote(out, dir.data);
		buf_str(out, " >/dev/null 2>&1 || { command printf %s ");
		buf_shell_quote(out, words.data);
		buf_str(out, " >&2; return 1; }; ");
	}
	if (env) {
		json_object_object_foreach(env, name, value)
		{
			if (!value)
				continue;
			buf_printf(out, "%s=", name);
			buf_shell_quote(out, json_object_get_string(value));
			buf_char(out, ' ');
		}
	}
	buf_str(out, "command eval ");
	buf_shell_quote(out, text);
	buf_char(out, '\n');
}

/* --- the private directory --- */

static const char *const work_names[] = {"text", "raw", "in", "out", "err"};

static int write_all(int fd, const char *p, size_t n)
{
	for (size_t done = 0; done < n;) {
		ssize_t part = write(fd, p + done, n - done);
		if (part < 0 && errno == EINTR)
			continue;
		if (part <= 0)
			return part < 0 ? -errno : -EIO;
		done += (size_t)part;
	}
	return 0;
}

static int work_file(int dir, const char *name, const char *p, size_t n)
{
	AUTO_FD int fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	return write_all(fd, p, n);
}

static int work_input(int dir, int in)
{
	if (in < 0)
		return symlinkat("/dev/null", dir, "in") < 0 ? -errno : 0;
	AUTO_FD int fd = openat(dir, "in", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	AUTO_FREE char *piece = malloc(COPY);
	if (fd < 0 || !piece)
		return fd < 0 ? -errno : -ENOMEM;
	for (off_t at = 0;;) {
		ssize_t n = pread(in, piece, COPY, at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : 0;
		int err = write_all(fd, piece, (size_t)n);
		if (err < 0)
			return err;
		at += n;
	}
}

static int work_pipe(int dir, const char *name, int *reads, int *writes)
{
	if (mkfifoat(dir, name, 0600) < 0)
		return -errno;
	*reads = openat(dir, name, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (*reads >= 0)
		*writes = openat(dir, name, O_WRONLY | O_CLOEXEC);
	return *reads < 0 || *writes < 0 ? -errno : 0;
}

int shell_work_new(const char *spool_dir, const struct buf *text, const char *raw, int in,
	char **work, int reads[2], int writes[2])
{
	char *name = NULL;
	reads[0] = reads[1] = writes[0] = writes[1] = -1;
	if (buf_error(text) < 0 || asprintf(&name, "%s/sandboxd-XXXXXX", spool_dir) < 0)
		return -ENOMEM;
	if (!mkdtemp(name)) {
		int err = -errno;
		free(name);
		return err;
	}
	AUTO_FD int dir = open(name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	int err = dir < 0 ? -errno : work_file(dir, "text", text->data, text->size);
	if (!err && raw)
		err = work_file(dir, "raw", raw, strlen(raw));
	if (!err)
		err = work_input(dir, in);
	if (!err)
		err = work_pipe(dir, "out", &reads[0], &writes[0]);
	if (!err)
		err = work_pipe(dir, "err", &reads[1], &writes[1]);
	if (err) {
		for (int i = 0; i < 2; i++) {
			if (reads[i] >= 0)
				close(reads[i]);
			if (writes[i] >= 0)
				close(writes[i]);
			reads[i] = writes[i] = -1;
		}
		shell_work_remove(&name);
		return err;
	}
	*work = name;
	return 0;
}

void shell_work_remove(char **work)
{
	if (!*work)
		return;
	int dir = open(*work, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	/* A command may remove its own files: nothing is left to do then. */
	for (size_t i = 0; dir >= 0 && i < sizeof work_names / sizeof *work_names; i++)
		(void)unlinkat(dir, work_names[i], 0);
	if (dir >= 0)
		close(dir);
	(void)rmdir(*work);
	free(*work);
	*work = NULL;
}
