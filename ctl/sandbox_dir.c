/*
 * NAME/ctl/: one sandbox. The table of its files and the verbs of its ctl. With -o sandbox=NAME, where the mount is
 * the sandbox, the server's files stand beside them.
 */
#include <errno.h>
#include <malloc.h>
#include <string.h>

#include "backups.h"
#include "cleanup.h"
#include "code_room.h"
#include "env.h"
#include "events.h"
#include "git.h"
#include "kinds.h"
#include "runs.h"
#include "sessions.h"
#include "workspace_tar.h"

/* --- verbs --- */

/* What destroy has to say is read where the sandbox is not: in the server's error. */
static int report_destroy(const struct ctl_ref *ref, struct call *c, int err)
{
	if (!err || err == -EINTR)
		return err;
	(void)call_fault(c, -err, NULL, "%s: it could not be destroyed: %s", sandbox_name(ref->sandbox),
		strerror(-err));
	server_note_fault(ref->server, &c->fault);
	return err;
}

static int verb_destroy(const struct ctl_ref *ref, struct call *c, int argc, char **argv)
{
	AUTO_BUF unsent = BUF_INIT;
	const char *name = sandbox_name(ref->sandbox);
	if (argc > 1 && strcmp(argv[1], "force") != 0)
		return call_fault(c, EINVAL, NULL, "destroy %s: write destroy or destroy force", argv[1]);
	sandbox_describe_sync(ref->sandbox, &unsent);
	if (unsent.size && argc == 1)
		return report_destroy(ref, c,
			call_fault(c, EBUSY, NULL,
				"%s: not all that was written is in the sandbox; see sync, or destroy force",
				name));
	/* The name goes with the sandbox, and the message outlives both. */
	AUTO_FREE char *copy = strdup(name);
	if (!copy)
		return -ENOMEM;
	return report_destroy(ref, c, server_destroy(ref->server, c, copy, true));
}

static int verb_flush(const struct ctl_ref *ref, struct call *c, int argc, char **argv)
{
	(void)argc;
	(void)argv;
	return sandbox_barrier(ref->sandbox, c);
}

/* A path that names nothing unsent. */
static int not_unsent(struct call *c, int err, char **argv)
{
	return err != -ENOENT ? err
						  : call_fault(c, ENOENT, NULL,
								"%s %s: nothing is unsent there; cat sync lists what is, by its "
								"path below workspace/",
								argv[0], argv[1] ? argv[1] : "");
}

static int verb_retry(const struct ctl_ref *ref, struct call *c, int argc, char **argv)
{
	return not_unsent(c, sandbox_retry(ref->sandbox, c, argc > 1 ? argv[1] : NULL), argv);
}

static int verb_accept(const struct ctl_ref *ref, struct call *c, int argc, char **argv)
{
	(void)argc;
	(void)argv;
	sandbox_accept(ref->sandbox);
	return sandbox_retry(ref->sandbox, c, NULL);
}

static int verb_discard(const struct ctl_ref *ref, struct call *c, int argc, char **argv)
{
	(void)argc;
	const char *path = strcmp(argv[1], "all") == 0 ? NULL : argv[1];
	int err = not_unsent(c, sandbox_discard(ref->sandbox, c, path), argv);
	if (!err && !path)
		sandbox_accept(ref->sandbox); /* nothing is left that could be meant for another */
	return err;
}

static int verb_drop_caches(const struct ctl_ref *ref, struct call *c, int argc, char **argv)
{
	(void)c;
	(void)argc;
	(void)argv;
	sandbox_drop_caches(ref->sandbox);
	(void)malloc_trim(0); /* what was freed goes back to the system; nothing to give is as well */
	return 0;
}

/* Without a number: all that was started from here, in sessions and contexts too. */
static int verb_cancel(const struct ctl_ref *ref, struct call *c, int argc, char **argv)
{
	if (argc == 1) {
		ctl_sessions_cancel(ref->sandbox);
		ctl_code_cancel(ref->sandbox);
	}
	return ctl_runs_cancel(ref, c, argc, argv);
}

static int verb_kill_all(const struct ctl_ref *ref, struct call *c, int argc, char **argv)
{
	(void)argc;
	int err = verb_cancel(ref, c, 1, argv);
	return err ? err : sandbox_api(ref->sandbox, c, "DELETE", "/api/process/kill-all", NULL, NULL);
}

static const char never_sleeps[] =
	"sandboxes of this server do not sleep; they run until they are destroyed or the mount ends";

/* Where they do not sleep, to be kept alive is what can be had, and anything else is not. */
static int verb_keepalive(const struct ctl_ref *ref, struct call *c, int argc, char **argv)
{
	bool on = strcmp(argv[1], "on") == 0;
	(void)argc;
	if (!on && strcmp(argv[1], "off") != 0)
		return call_fault(
			c, EINVAL, NULL, "keepalive %s: write keepalive on or keepalive off", argv[1]);
	if (sandbox_sleeps(ref->sandbox))
		sandbox_sleep_set(ref->sandbox, &on, 0);
	else if (!on)
		return call_fault(c, ENOTSUP, NULL, "keepalive off: %s", never_sleeps);
	return 0;
}

static int verb_sleep_after(const struct ctl_ref *ref, struct call *c, int argc, char **argv)
{
	int64_t ms;
	(void)argc;
	if (ctl_parse_duration(argv[1], &ms) < 0 || ms < 1000)
		return call_fault(
			c, EINVAL, NULL, "sleep-after %s: write a time, from 1s on: sleep-after 20m", argv[1]);
	if (!sandbox_sleeps(ref->sandbox))
		return call_fault(c, ENOTSUP, NULL, "sleep-after %s: %s", argv[1], never_sleeps);
	sandbox_sleep_set(ref->sandbox, NULL, ms);
	return 0;
}

static const struct ctl_verb sandbox_verbs[] = {
	{"destroy", 0, 1, verb_destroy, "destroy [force]"},
	{"cancel", 0, 1, verb_cancel, "cancel [N]"},
	{"keepalive", 1, 1, verb_keepalive, "keepalive on|off"},
	{"sleep-after", 1, 1, verb_sleep_after, "sleep-after DUR"},
	{"flush", 0, 0, verb_flush, "flush"},
	{"retry", 0, 1, verb_retry, "retry [PATH]"},
	{"accept", 0, 0, verb_accept, "accept"},
	{"discard", 1, 1, verb_discard, "discard PATH|all"},
	{"drop-caches", 0, 0, verb_drop_caches, "drop-caches"},
	{"kill-all", 0, 0, verb_kill_all, "kill-all"},
	{NULL, 0, 0, NULL, NULL},
};

static int show_settings(const struct ctl_ref *ref, struct call *c, struct buf *out)
{
	struct sandbox_sleep sleep;
	(void)c;
	sandbox_sleep_get(ref->sandbox, &sleep);
	if (sandbox_sleeps(ref->sandbox))
		buf_printf(out, "keepalive %s\nsleep-after %llds\n", sleep.keepalive ? "on" : "off",
			(long long)sleep.after_ms / 1000);
	else /* a comment, so that it can be written back */
		buf_printf(out, "# nothing can be set here: %s\n", never_sleeps);
	return 0;
}

/* --- the table --- */

#define SANDBOX_ROWS                                                                               \
	{.name = "exec",                                                                               \
		.mode = 0666,                                                                              \
		.kind = CTL_TALK,                                                                          \
		.begin = ctl_exec_begin,                                                                   \
		.talk = &ctl_exec_talk,                                                                    \
		.stream = &ctl_exec_stream,                                                                \
		.grammar = "W a command or script, close waits for its end (not that of a program which "  \
				   "exits: { echo x > exec; } & for echo x > exec &); RW a line starts a "         \
				   "command, read its output; R the newest run's output so far"},                  \
		{.name = "exec.json",                                                                      \
			.mode = 0666,                                                                          \
			.kind = CTL_TALK,                                                                      \
			.begin = ctl_exec_begin,                                                               \
			.talk = &ctl_exec_json_talk,                                                           \
			.stream = &ctl_exec_json_stream,                                                       \
			.max = 64 * 1024 * 1024,                                                               \
			.grammar = "W or RW {\"command\",\"cwd\"?,\"env\"?,\"timeout\"?,\"sessionId\"?,"       \
					   "\"stdin\"?|\"stdinBase64\"?}; R events, one a line, the last is exit or "  \
					   "error; a session that is not there is made"},                              \
		{.name = "runs",                                                                           \
			.mode = 0700,                                                                          \
			.kind = CTL_DIR,                                                                       \
			.dir = &ctl_runs_dir,                                                                  \
			.grammar = "N/: cmd stdout stderr logs exit started duration of the newest runs"},     \
		{.name = "last",                                                                           \
			.mode = 0777,                                                                          \
			.kind = CTL_LINK,                                                                      \
			.target = ctl_runs_last,                                                               \
			.grammar = "the newest run"},                                                          \
		{.name = "processes",                                                                      \
			.mode = 0700,                                                                          \
			.kind = CTL_DIR,                                                                       \
			.dir = &ctl_processes_dir,                                                             \
			.grammar = "background processes: write processes/new, or mkdir processes/ID"},        \
		{.name = "sessions",                                                                       \
			.mode = 0700,                                                                          \
			.kind = CTL_DIR,                                                                       \
			.dir = &ctl_sessions_dir,                                                              \
			.grammar = "shells that keep their state: write sessions/new, or mkdir sessions/ID"},  \
		{.name = "code",                                                                           \
			.mode = 0700,                                                                          \
			.kind = CTL_DIR,                                                                       \
			.dir = &ctl_code_dir,                                                                  \
			.grammar = "interpreters that keep their state: write code/NAME/run, or mkdir NAME"},  \
		{.name = "env",                                                                            \
			.mode = 0600,                                                                          \
			.kind = CTL_TEXT,                                                                      \
			.show = ctl_env_show,                                                                  \
			.store = ctl_env_store,                                                                \
			.grammar = "W KEY=VALUE lines set, for every later exec, process, session and "        \
					   "context, KEY alone unsets; R those set by this mount"},                    \
		{.name = "env.json",                                                                       \
			.mode = 0600,                                                                          \
			.kind = CTL_TEXT,                                                                      \
			.show = ctl_env_show_json,                                                             \
			.store = ctl_env_store_json,                                                           \
			.grammar = "the same as one JSON object, for values with newlines; null unsets"},      \
		{.name = "ports",                                                                          \
			.mode = 0700,                                                                          \
			.kind = CTL_DIR,                                                                       \
			.dir = &ctl_ports_dir,                                                                 \
			.grammar = "PORT: write [NAME] exposes it, read gives its URL, rm -f takes it back"},  \
		{.name = "mounts",                                                                         \
			.mode = 0700,                                                                          \
			.kind = CTL_DIR,                                                                       \
			.dir = &ctl_mounts_dir,                                                                \
			.grammar = "buckets: write mounts/new, read mounts/NAME, rm unmounts"},                \
		{.name = "ws",                                                                             \
			.mode = 0700,                                                                          \
			.kind = CTL_DIR,                                                                       \
			.dir = &ctl_ws_dir,                                                                    \
			.grammar = "WebSockets: PORT, or mkdir NAME and write its ctl"},                       \
		{.name = "pty",                                                                            \
			.mode = 0700,                                                                          \
			.kind = CTL_DIR,                                                                       \
			.dir = &ctl_pty_dir,                                                                   \
			.grammar = "terminals: write pty/new, then N/: data ctl wait"},                        \
		{.name = "events",                                                                         \
			.mode = 0666,                                                                          \
			.kind = CTL_TALK,                                                                      \
			.talk = &events_talk_ops,                                                              \
			.stream = &events_stream_ops,                                                          \
			.starts = true,                                                                        \
			.grammar = "R TYPE<TAB>PATH[<TAB>NEWPATH] of each change below workspace/ from the "   \
					   "open on; RW first line [DIR] [include=G]... [exclude=G]... "               \
					   "[recursive=no] [since=VERSION]"},                                          \
		{.name = "git",                                                                            \
			.mode = 0666,                                                                          \
			.kind = CTL_CALL,                                                                      \
			.call = git_call,                                                                      \
			.show = git_show,                                                                      \
			.talk = &git_talk_ops,                                                                 \
			.grammar = "W URL [branch=B] [dir=D] [depth=N] [timeout=DUR] clones and waits; RW "    \
					   "starts it, read its progress; R the newest clone's progress, then dir D"}, \
		{.name = "workspace.tar",                                                                  \
			.mode = 0666,                                                                          \
			.kind = CTL_UPLOAD,                                                                    \
			.stream = &workspace_tar_stream,                                                       \
			.whole = true, /* tar reads what looks like a file in blocks of 512 bytes */           \
			.starts = true,                                                                        \
			.upload = &workspace_tar_upload,                                                       \
			.grammar = "R workspace/ as a tar, as it goes; W a tar (plain, gzip, zstd) is "        \
					   "unpacked into it as it comes, close reports errors"},                      \
		{.name = "backups",                                                                        \
			.mode = 0700,                                                                          \
			.kind = CTL_DIR,                                                                       \
			.dir = &ctl_backups_dir,                                                               \
			.grammar = "copies of directories: write backups/new, then backups/ID: restore"},      \
		{.name = "status",                                                                         \
			.mode = 0444,                                                                          \
			.kind = CTL_TEXT,                                                                      \
			.show = ctl_show_status,                                                               \
			.grammar =                                                                             \
				"R one word: unknown starting running unreachable replaced in-use; then "          \
				"id server boot since sleeps-at keepalive network detail (a sentence on the "      \
				"state, e.g. who uses it)"},                                                       \
		{.name = "sync",                                                                           \
			.mode = 0444,                                                                          \
			.kind = CTL_TEXT,                                                                      \
			.show = ctl_show_sync,                                                                 \
			.grammar = "R what is not in the sandbox yet: queued, held, failed, conflict lines; "  \
					   "empty: all is there"},                                                     \
		{.name = "error",                                                                          \
			.mode = 0444,                                                                          \
			.kind = CTL_TEXT,                                                                      \
			.show = ctl_show_error,                                                                \
			.grammar = "R the newest failure: code errno message suggestion operation path time "  \
					   "pid retry"},                                                               \
	{                                                                                              \
		.name = "ctl", .mode = 0666, .kind = CTL_VERBS, .show = show_settings,                     \
		.verbs = sandbox_verbs, .grammar = "R the settings, can be written back; W:"               \
	}

static const struct ctl_row sandbox_rows[] = {SANDBOX_ROWS, {.name = NULL}};

static const struct ctl_row single_rows[] = {SANDBOX_ROWS, CTL_SERVER_ROWS, {.name = NULL}};

const struct ctl_dir ctl_sandbox_dir = {
	.help = "One sandbox. R what a read gives, W what a write takes, RW both in one opening.",
	.rows = sandbox_rows,
	.list_help = true,
};
const struct ctl_dir ctl_single_dir = {
	.help = "The sandbox. R what a read gives, W what a write takes, RW both in one opening.",
	.rows = single_rows,
	.list_help = true,
};
