/*
 * How a command begins: as a program of its own with pipes or with a terminal, or in the shell of a session. Owns nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "command_pump.h"
#include "commands.h"
#include "pty.h"
#include "script.h"
#include "session.h"
#include "session_shell.h"

/* An interpreter that cannot be run is the script's fault: 127 and a sentence, as a shell does. */
static void bad_interpreter(struct command *c, const char *interpreter, int err)
{
	AUTO_BUF b = BUF_INIT;
	buf_printf(&b, "%s: bad interpreter: %s\n", interpreter, strerrordesc_np(err));
	if (!buf_error(&b))
		(void)spool_append(c->spool, SPOOL_STDERR, b.data, b.size);
}

static int begin_program(struct command *c, int out, int err_end)
{
	struct script script;
	int err = script_make(c->server, c->text, c->text_size, &script);
	c->script = script.file;
	AUTO_FREE const char **env = NULL;
	if (!err)
		err = script_environment(&c->environment, &env);
	if (err < 0) {
		script_release(&script);
		return err;
	}
	struct spawn s = {.argv = script.argv,
		.env = env,
		.cwd = c->cwd,
		.in = c->in,
		.out = out,
		.err = err_end,
		.terminal = c->terminal >= 0,
		.processes = c->server->processes,
		.files = c->server->own_files};
	int status;
	clock_gettime(CLOCK_REALTIME, &c->begin_time);
	err = commands_fork(c, &s, &status);
	if (!err)
		err = spawn_outcome(status);
	if (err > 0 && script.has_interpreter) {
		bad_interpreter(c, script.argv[0], err);
		err = 0;
	}
	script_release(&script);
	return err > 0 ? -err : err;
}

static int pipes_make(struct pump *p, int ends[2])
{
	for (int i = 0; i < 2; i++) {
		int pair[2];
		if (pipe2(pair, O_CLOEXEC) < 0)
			return -errno;
		p->fd[i] = pair[0];
		ends[i] = pair[1];
		if (fcntl(pair[0], F_SETFL, O_NONBLOCK) < 0)
			return -errno;
	}
	return 0;
}

/* --- with a terminal --- */

static int begin_at_terminal(struct pump *p)
{
	struct command *c = p->c;
	AUTO_FD int terminal = -1;
	int err = pty_open(c->columns, c->rows, &c->terminal, &terminal);
	if (err < 0)
		return err;
	p->fd[0] = fcntl(c->terminal, F_DUPFD_CLOEXEC, 3);
	if (p->fd[0] < 0)
		return -errno;
	close(c->in);
	c->in = steal_fd(&terminal);
	return begin_program(c, c->in, c->in);
}

static int begin_with_pipes(struct pump *p)
{
	int ends[2] = {-1, -1};
	int err = pipes_make(p, ends);
	if (!err)
		err = begin_program(p->c, ends[0], ends[1]);
	for (int i = 0; i < 2; i++)
		if (ends[i] >= 0)
			close(ends[i]);
	return err;
}

/* --- in the shell of a session --- */

/* What the shell is to evaluate: the text, or the words that run it with the interpreter it names. */
static int text_make(struct command *c, struct buf *out)
{
	struct script script;
	AUTO_BUF words = BUF_INIT;
	const char *text = c->text;
	if (c->text_size > 2 && c->text[0] == '#' && c->text[1] == '!') {
		int err = script_make(c->server, c->text, c->text_size, &script);
		if (err < 0)
			return err;
		c->script = script.file;
		for (int i = 0; script.has_interpreter && script.argv[i]; i++) {
			buf_shell_quote(&words, script.argv[i]);
			buf_char(&words, ' ');
		}
		if (script.has_interpreter)
			text = words.data;
		script_release(&script);
		if (!text)
			return -ENOMEM;
	}
	c->checked = text == c->text && shell_text_is_risky(text);
	shell_text(out, text, c->own_cwd ? c->given_cwd : NULL, c->env);
	return buf_error(out);
}

static int run_in_shell(struct pump *p)
{
	struct command *c = p->c;
	AUTO_BUF text = BUF_INIT;
	struct stat st;
	bool given = fstat(c->in, &st) == 0 && S_ISREG(st.st_mode);
	int err = session_turn(c->session, c);
	if (!err)
		err = text_make(c, &text);
	if (!err)
		err = shell_work_new(c->server->spool_dir, &text, c->checked ? c->text : NULL,
			given ? c->in : -1, &p->work, p->fd, p->hold);
	pid_t pid = 0;
	if (!err)
		err = session_run(c->session, c, p->work, &pid, &p->report);
	if (err < 0)
		return err;
	AUTO_UNLOCK(&c->lock);
	c->pid = pid;
	return 0;
}

static int begin_in_shell(struct pump *p)
{
	struct command *c = p->c;
	p->joined = true;
	clock_gettime(CLOCK_REALTIME, &c->begin_time);
	{
		/* Accepted: whoever started it does not wait for its turn. */
		AUTO_UNLOCK(&c->lock);
		c->started = true;
		pthread_cond_broadcast(&c->changed);
	}
	int err = run_in_shell(p);
	if (!err)
		return 0;
	/* From here on it can only end. */
	p->failed = (err == -ECANCELED ? 128 + SIGTERM : err == -ESHUTDOWN ? 128 + SIGKILL : 126) << 8;
	p->failed_lost = err != -ECANCELED;
	if (err != -ECANCELED && err != -ESHUTDOWN) {
		AUTO_BUF words = BUF_INIT;
		buf_printf(&words, "the shell of the session cannot run this: %s\n", strerrordesc_np(-err));
		if (!buf_error(&words))
			(void)spool_append(c->spool, SPOOL_STDERR, words.data, words.size);
	}
	for (int i = 0; i < 2; i++)
		if (p->fd[i] >= 0)
			close(steal_fd(&p->fd[i]));
	return 0;
}

int pump_begin(struct pump *p)
{
	if (p->c->in_shell)
		return begin_in_shell(p);
	return p->c->columns ? begin_at_terminal(p) : begin_with_pipes(p);
}
