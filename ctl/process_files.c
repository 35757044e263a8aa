/*
 * The files of one process: the table of all, and those for its settings, its state and its verbs.
 *
 * Settings are this mount's until the start, then what the sandbox says. State is asked of the sandbox at every read.
 */
#include <errno.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cleanup.h"
#include "env.h"
#include "processes.h"

enum { KILL_WAIT_MS = 10000 };

static struct process *process_of(const struct ctl_ref *ref)
{
	return ref->object;
}

/* ---- settings ---- */

static void show_text(struct buf *out, const char *text)
{
	size_t n = strlen(text);

	buf_add(out, text, n);
	if (n > 0 && text[n - 1] != '\n')
		buf_char(out, '\n');
}

/* What the sandbox says if it runs or nothing else is set, else the settings. *info is released by the caller. */
static int look_settings(
	const struct ctl_ref *ref, struct call *c, struct process_info *info, bool *settings)
{
	struct process *p = process_of(ref);
	int err = process_look(ref, c, p, info);

	if (err && err != -ENOENT)
		return err;
	AUTO_UNLOCK(&p->set->lock);
	*settings = err || (!info->running && p->has_settings);
	return 0;
}

static int show_cmd(const struct ctl_ref *ref, struct call *c, struct buf *out)
{
	struct process *p = process_of(ref);
	AUTO_PROCESS_INFO info = {0};
	bool settings;
	int err = look_settings(ref, c, &info, &settings);

	if (err)
		return err;
	AUTO_UNLOCK(&p->set->lock);
	if (info.command)
		show_text(out, info.command);
	else if (p->command)
		show_text(out, p->command);
	return 0;
}

static int submit_cmd(
	const struct ctl_ref *ref, struct call *c, const char *text, size_t n, struct buf *answer)
{
	(void)answer; /* what it prints is in its other files */
	if (n > 0 && memchr(text, 0, n))
		return call_fault(c, EINVAL, NULL, "a command holds no NUL byte");
	n -= n > 0 && text[n - 1] == '\n';
	size_t blank = 0;
	while (blank < n && strchr(" \t\r\n", text[blank]))
		blank++;
	if (blank == n)
		return call_fault(c, EINVAL, NULL, "there is no command in it");
	return process_begin(ref, c, process_of(ref), text, n);
}

static int show_cwd(const struct ctl_ref *ref, struct call *c, struct buf *out)
{
	struct process *p = process_of(ref);
	AUTO_PROCESS_INFO info = {0};
	bool settings;
	int err = look_settings(ref, c, &info, &settings);

	if (err)
		return err;
	AUTO_UNLOCK(&p->set->lock);
	const char *cwd = settings ? p->cwd : info.cwd;
	show_text(out, cwd && *cwd ? cwd : "/workspace");
	return 0;
}

static int edit_cwd(struct process *p, void *arg)
{
	char *copy = strdup(arg);

	if (!copy)
		return -ENOMEM;
	free(p->cwd);
	p->cwd = copy;
	p->has_settings = true;
	return 0;
}

/* The one word of a text; *words owns it. An empty text has none. */
static int one_word(struct call *c, const char *text, size_t n, char ***words, const char **word)
{
	int count;
	int err = ctl_split(c, n > 0 ? text : "", n, &count, words);

	if (err)
		return err;
	if (count > 1)
		return call_fault(c, EINVAL, NULL, "one word is expected ('...' keeps blanks): %.*s",
			(int)(n < 200 ? n : 200), text);
	*word = count == 1 ? (*words)[0] : NULL;
	return 0;
}

static int store_cwd(
	const struct ctl_ref *ref, struct call *c, const char *text, size_t n, bool append)
{
	AUTO_FREE char **words = NULL;
	const char *word = NULL;
	int err = one_word(c, text, n, &words, &word);

	(void)append; /* one value: the newest holds */
	if (err || !word)
		return err;
	return process_edit(ref, c, process_of(ref), edit_cwd, (void *)word);
}

static void show_seconds(struct buf *out, int64_t ms)
{
	buf_printf(out, "%lld", (long long)ms / 1000);
	if (ms % 1000)
		buf_printf(out, ".%03d", (int)(ms % 1000));
	buf_char(out, '\n');
}

static int show_timeout(const struct ctl_ref *ref, struct call *c, struct buf *out)
{
	struct process *p = process_of(ref);
	AUTO_PROCESS_INFO info = {0};
	bool settings;
	int err = look_settings(ref, c, &info, &settings);

	if (err)
		return err;
	AUTO_UNLOCK(&p->set->lock);
	int64_t ms = settings ? p->timeout_ms : info.timeout_ms;
	if (ms > 0)
		show_seconds(out, ms);
	return 0;
}

static int edit_timeout(struct process *p, void *arg)
{
	p->timeout_ms = *(int64_t *)arg;
	p->has_settings = true;
	return 0;
}

static int store_timeout(
	const struct ctl_ref *ref, struct call *c, const char *text, size_t n, bool append)
{
	AUTO_FREE char **words = NULL;
	const char *word = NULL;
	int64_t ms = 0;
	int err = one_word(c, text, n, &words, &word);

	(void)append; /* one value: the newest holds */
	if (err || !word)
		return err;
	if (ctl_parse_duration(word, &ms) < 0)
		return call_fault(
			c, EINVAL, NULL, "no duration: %s; use 30s, 10m, 2h, 500ms, 0 for none", word);
	return process_edit(ref, c, process_of(ref), edit_timeout, &ms);
}

static int show_session(const struct ctl_ref *ref, struct call *c, struct buf *out)
{
	struct process *p = process_of(ref);

	(void)c;
	AUTO_UNLOCK(&p->set->lock);
	if (p->session)
		show_text(out, p->session);
	return 0;
}

static int edit_session(struct process *p, void *arg)
{
	char *copy = strdup(arg);

	if (!copy)
		return -ENOMEM;
	free(p->session);
	p->session = copy;
	p->has_settings = true;
	return 0;
}

static int store_session(
	const struct ctl_ref *ref, struct call *c, const char *text, size_t n, bool append)
{
	AUTO_FREE char **words = NULL;
	const char *word = NULL;
	int err = one_word(c, text, n, &words, &word);

	(void)append; /* one value: the newest holds */
	if (err || !word)
		return err;
	return process_edit(ref, c, process_of(ref), edit_session, (void *)word);
}

static int show_env(const struct ctl_ref *ref, struct call *c, struct buf *out)
{
	struct process *p = process_of(ref);
	AUTO_PROCESS_INFO info = {0};
	bool settings;
	int err = look_settings(ref, c, &info, &settings);

	if (err)
		return err;
	AUTO_UNLOCK(&p->set->lock);
	ctl_env_put(settings ? p->env : info.env, out);
	return 0;
}

struct env_edit {
	struct json_object *changes;
	bool append;
};

static int edit_env(struct process *p, void *arg)
{
	const struct env_edit *e = arg;
	struct json_object *env;
	int err = ctl_env_changed(e->append ? p->env : NULL, e->changes, &env);

	if (err)
		return err;
	json_object_put(p->env);
	p->env = env;
	p->has_settings = true;
	return 0;
}

static int store_env(
	const struct ctl_ref *ref, struct call *c, const char *text, size_t n, bool append)
{
	struct env_edit e = {NULL, append};
	int err = ctl_env_parse(c, text, n, &e.changes);

	if (!err)
		err = process_edit(ref, c, process_of(ref), edit_env, &e);
	json_object_put(e.changes);
	return err;
}

/* ---- state ---- */

enum value { VALUE_PID, VALUE_STATUS, VALUE_EXIT, VALUE_STARTED, VALUE_ENDED, VALUE_DURATION };

/* "2026-11-23T01:02:03.456Z" to milliseconds since 1970. */
static bool parse_instant(const char *text, int64_t *ms)
{
	struct tm tm = {0};
	const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
	int64_t fraction = 0;

	if (!rest)
		return false;
	if (*rest == '.') {
		int64_t worth = 100;
		for (rest++; *rest >= '0' && *rest <= '9'; rest++, worth /= 10)
			fraction += (*rest - '0') * worth;
	}
	*ms = (int64_t)timegm(&tm) * 1000 + fraction;
	return strcmp(rest, "Z") == 0;
}

static void put_duration(struct buf *out, const struct process_info *info)
{
	int64_t from, to;

	if (!parse_instant(info->started, &from) || !parse_instant(info->ended, &to))
		return;
	int64_t ms = to > from ? to - from : 0;
	buf_printf(out, "%lld.%03d\n", (long long)ms / 1000, (int)(ms % 1000));
}

/* Of one that the sandbox does not have. */
static void put_absent(struct buf *out, enum value which, bool lost)
{
	if (which == VALUE_STATUS)
		buf_str(out, lost ? "lost\n" : "new\n");
	else if (which == VALUE_EXIT && lost)
		buf_str(out, "unknown\n");
}

static int show_value(const struct ctl_ref *ref, struct call *c, struct buf *out, enum value which)
{
	struct process *p = process_of(ref);
	AUTO_PROCESS_INFO info = {0};
	int err = process_look(ref, c, p, &info);

	if (err == -ENOENT || (ctl_link_down(err) && which == VALUE_STATUS)) {
		AUTO_UNLOCK(&p->set->lock);
		put_absent(out, which, p->started_here || !p->draft);
		return 0;
	}
	if (err)
		return err;
	switch (which) {
	case VALUE_PID:
		if (info.pid)
			buf_printf(out, "%lld\n", (long long)info.pid);
		break;
	case VALUE_STATUS:
		buf_printf(out, "%s\n", info.status[0] ? info.status : "error");
		break;
	case VALUE_EXIT:
		if (info.has_exit && !info.running)
			buf_printf(out, "%d\n", info.exit_code);
		else if (!info.running)
			buf_str(out, "unknown\n");
		break;
	case VALUE_STARTED:
		show_text(out, info.started);
		break;
	case VALUE_ENDED:
		show_text(out, info.ended);
		break;
	case VALUE_DURATION:
		put_duration(out, &info);
		break;
	}
	return 0;
}

#define SHOW_VALUE(name, which)                                                                    \
	static int name(const struct ctl_ref *ref, struct call *c, struct buf *out)                    \
	{                                                                                              \
		return show_value(ref, c, out, which);                                                     \
	}
SHOW_VALUE(show_pid, VALUE_PID)
SHOW_VALUE(show_status, VALUE_STATUS)
SHOW_VALUE(show_exit, VALUE_EXIT)
SHOW_VALUE(show_started, VALUE_STARTED)
SHOW_VALUE(show_ended, VALUE_ENDED)
SHOW_VALUE(show_duration, VALUE_DURATION)

/* ---- verbs ---- */

/* Ends it, and waits until it has. */
static int end_process(const struct ctl_ref *ref, struct call *c)
{
	struct process *p = process_of(ref);
	int err = process_signal(ref->sandbox, c, p->id, NULL);

	if (!err)
		err = process_wait(ref->sandbox, c, p->id, KILL_WAIT_MS);
	if (!err)
		sandbox_invalidate(
			ref->sandbox); /* what it did last is seen by whoever asked for its end */
	if (err == -ETIMEDOUT)
		return call_fault(
			c, ETIMEDOUT, NULL, "it has not ended %d s after KILL", KILL_WAIT_MS / 1000);
	return err;
}

static bool signal_ok(const char *s)
{
	static const char *const names[] = {"HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE",
		"KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM", "CHLD", "CONT", "STOP", "TSTP",
		"TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS"};
	int64_t n;

	if (ctl_parse_number(s, 1, 64, &n) == 0)
		return true;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strcmp(s, names[i]) == 0)
			return true;
	}
	return false;
}

static int verb_kill(const struct ctl_ref *ref, struct call *c, int argc, char **argv)
{
	struct process *p = process_of(ref);
	AUTO_PROCESS_INFO info = {0};
	const char *signal = argc > 1 ? argv[1] : NULL;

	if (signal && strncmp(signal, "SIG", 3) == 0)
		signal += 3;
	if (signal && !signal_ok(signal))
		return call_fault(
			c, EINVAL, NULL, "no signal: %s; use TERM, INT, KILL or a number", argv[1]);
	int err = process_look(ref, c, p, &info);
	if (err == -ENOENT)
		return call_fault(c, ESRCH, NULL, "it does not run; there is nothing to kill");
	if (err || !info.running)
		return err;
	return signal ? process_signal(ref->sandbox, c, p->id, signal) : end_process(ref, c);
}

static int verb_restart(const struct ctl_ref *ref, struct call *c, int argc, char **argv)
{
	AUTO_PROCESS_INFO info = {0};
	int err = process_look(ref, c, process_of(ref), &info);

	(void)argc, (void)argv; /* it takes no words */
	if (!err && info.running)
		err = end_process(ref, c);
	if (err && err != -ENOENT)
		return err;
	return process_begin(ref, c, process_of(ref), NULL, 0);
}

static const struct ctl_verb process_verbs[] = {
	{"kill", 0, 1, verb_kill, "kill [TERM|INT|KILL|N]"},
	{"restart", 0, 0, verb_restart, "restart"},
	{NULL, 0, 0, NULL, NULL},
};

/* ---- the table ---- */

static const struct ctl_row process_rows[] = {
	{.name = "cmd",
		.mode = 0600,
		.kind = CTL_DOC,
		.grammar = "W a command starts it (EBUSY while it runs; after its end: again, with empty "
				   "logs); R the command",
		.submit = submit_cmd,
		.show = show_cmd},
	{.name = "cwd",
		.mode = 0600,
		.kind = CTL_TEXT,
		.grammar = "RW its directory, before the start",
		.show = show_cwd,
		.store = store_cwd},
	{.name = "env",
		.mode = 0600,
		.kind = CTL_TEXT,
		.grammar = "RW KEY=VALUE lines, before the start; >> adds, KEY alone takes away",
		.show = show_env,
		.store = store_env},
	{.name = "timeout",
		.mode = 0600,
		.kind = CTL_TEXT,
		.grammar = "RW 30s 10m 2h, before the start; it is ended after that (exit 124)",
		.show = show_timeout,
		.store = store_timeout},
	{.name = "session",
		.mode = 0600,
		.kind = CTL_TEXT,
		.grammar = "RW the session where it starts and with which it ends, made if there is none; "
				   "empty: none",
		.show = show_session,
		.store = store_session},
	{.name = "pid",
		.mode = 0400,
		.kind = CTL_TEXT,
		.grammar = "R its number in the sandbox",
		.show = show_pid},
	{.name = "status",
		.mode = 0400,
		.kind = CTL_TEXT,
		.grammar =
			"R new starting running completed failed killed error lost (it, or the link to it)",
		.show = show_status},
	{.name = "exit",
		.mode = 0400,
		.kind = CTL_TEXT,
		.grammar = "R empty while it runs, its exit code, or unknown",
		.show = show_exit},
	{.name = "started", .mode = 0400, .kind = CTL_TEXT, .grammar = "R when", .show = show_started},
	{.name = "ended", .mode = 0400, .kind = CTL_TEXT, .grammar = "R when", .show = show_ended},
	{.name = "duration",
		.mode = 0400,
		.kind = CTL_TEXT,
		.grammar = "R seconds, once it has ended",
		.show = show_duration},
	{.name = "stdout",
		.mode = 0400,
		.kind = CTL_SIZED,
		.grammar = "R what it printed so far",
		.size = process_stdout_size,
		.pread = process_stdout_pread},
	{.name = "stderr",
		.mode = 0400,
		.kind = CTL_SIZED,
		.grammar = "R what it printed so far",
		.size = process_stderr_size,
		.pread = process_stderr_pread},
	{.name = "logs",
		.mode = 0400,
		.kind = CTL_SIZED,
		.grammar = "R both as they came, a snapshot that grows",
		.size = process_logs_size,
		.pread = process_logs_pread},
	{.name = "follow",
		.mode = 0400,
		.kind = CTL_STREAM,
		.grammar = "R both from the first byte to its end, as they come",
		.stream = &process_follow_stream},
	{.name = "follow.json",
		.mode = 0400,
		.kind = CTL_STREAM,
		.grammar = "R the same as events, one a line",
		.stream = &process_follow_json_stream},
	{.name = "wait",
		.mode = 0400,
		.kind = CTL_STREAM,
		.grammar = "R waits for its end, then the exit code or unknown",
		.stream = &process_wait_stream},
	{.name = "wait-port",
		.mode = 0600,
		.kind = CTL_CALL,
		.grammar = "W PORT [http|tcp] [path=/] [status=200-399] [interval=500ms] [timeout=DUR] "
				   "waits for it; RW ready [STATUS]",
		.call = process_call_wait_port},
	{.name = "wait-log",
		.mode = 0600,
		.kind = CTL_CALL,
		.grammar = "W [timeout=DUR] [stream=stdout|stderr] REGEX waits for a line; RW the line, "
				   "then each group",
		.call = process_call_wait_log},
	{.name = "ctl",
		.mode = 0600,
		.kind = CTL_VERBS,
		.grammar = "W kill [TERM|INT|KILL|N], restart",
		.verbs = process_verbs},
	{.name = NULL},
};

const struct ctl_dir process_dir = {
	.help = "One process: what it is, what it says, how it ends.",
	.rows = process_rows,
	.list_help = true,
};
