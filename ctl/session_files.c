/*
 * The files of one session. exec, exec.json, runs/ and last are the sandbox's own rooms: their rows find the session's runs through
 * the object of the directory (ctl_runs_at).
 *
 * State is asked of the sandbox at every read; nothing here waits for a command but env, which waits for its turn.
 */
#include <errno.h>
#include <json-c/json.h>
#include <string.h>

#include "cleanup.h"
#include "env.h"
#include "kinds.h"
#include "processes.h"
#include "session_api.h"
#include "sessions.h"

/* The default session may not have been made, and then is as a new one. */
static int look(const struct ctl_ref *ref, struct call *c, struct session_api_info *out)
{
	const struct session *s = ref->object;
	int err =
		sandbox_has_server(ref->sandbox) ? session_api_get(ref->sandbox, c, s->id, out) : -ENOENT;
	if (err != -ENOENT)
		return err;
	if (strcmp(s->id, SESSION_API_DEFAULT) != 0)
		return call_fault(c, ESTALE, NULL, "session %s is gone", s->id);
	*out = (struct session_api_info){.cwd = strdup("/workspace")};
	return out->cwd ? 0 : -ENOMEM;
}

/* --- cwd --- */

/* Where a path (as session_api_path makes it: it has no .. that could leave the mount) of the sandbox is in the mount, seen from NAME/ctl/sessions/ID (with subdir= from .ctl/sessions/ID). */
static void put_link(const char *path, bool subdir, struct buf *out)
{
	static const char workspace[] = "/workspace";
	size_t n = strlen(workspace);
	if (strncmp(path, workspace, n) != 0 || (path[n] && path[n] != '/')) {
		buf_printf(out, "%s/root%s", subdir ? "../.." : "../../..", path);
		return;
	}
	buf_printf(out, "../../..%s%s", subdir ? "" : workspace, path + n);
}

static int cwd_target(const struct ctl_ref *ref, struct call *c, struct buf *text)
{
	AUTO_SESSION_INFO info = {0};
	/* A listing asks only whether there is one. */
	if (!c)
		return 0;
	int err = look(ref, c, &info);
	if (err)
		return err;
	put_link(info.cwd, server_options(ref->server)->subdir != NULL, text);
	if (!buf_error(text) && text->size > SESSION_API_PATH_MAX)
		return call_fault(c, ENAMETOOLONG, NULL, "its directory's path is too long for a link");
	return buf_error(text);
}

/* --- env --- */

static int show_env(const struct ctl_ref *ref, struct call *c, struct buf *out)
{
	(void)c;
	session_put_env(ref->object, out, ctl_env_put);
	return 0;
}

static int store_env(
	const struct ctl_ref *ref, struct call *c, const char *text, size_t n, bool append)
{
	struct json_object *changes = NULL;
	(void)append; /* a shell has many that are not shown: there is nothing to be replaced */
	int err = ctl_env_parse(c, text, n, &changes);
	if (!err)
		err = session_change_env(ref, c, ref->object, changes);
	json_object_put(changes);
	return err;
}

/* --- ctl --- */

static int show_state(const struct ctl_ref *ref, struct call *c, struct buf *out)
{
	AUTO_SESSION_INFO info = {0};
	int err = look(ref, c, &info);
	if (err)
		return err;
	if (info.ended)
		buf_printf(out, "ended %d\n", info.exit_code);
	else
		buf_str(out, "alive\n");
	return 0;
}

/* A default session that was never made has nothing to end. */
static int verb_end(const struct ctl_ref *ref, struct call *c,
	int (*end)(struct sandbox *sb, struct call *c, const char *id))
{
	const struct session *s = ref->object;
	int err = sandbox_has_server(ref->sandbox) ? end(ref->sandbox, c, s->id) : -ENOENT;
	if (err != -ENOENT)
		return err;
	return strcmp(s->id, SESSION_API_DEFAULT) == 0
			   ? 0
			   : call_fault(c, ESTALE, NULL, "session %s is gone", s->id);
}

static int verb_interrupt(const struct ctl_ref *ref, struct call *c, int argc, char **argv)
{
	(void)argc;
	(void)argv;
	return verb_end(ref, c, session_api_interrupt);
}

static int verb_kill(const struct ctl_ref *ref, struct call *c, int argc, char **argv)
{
	(void)argc;
	(void)argv;
	return verb_end(ref, c, session_api_kill);
}

static const struct ctl_verb session_verbs[] = {
	{"interrupt", 0, 0, verb_interrupt, "interrupt"},
	{"kill", 0, 0, verb_kill, "kill"},
	{NULL, 0, 0, NULL, NULL},
};

/* --- the tables --- */

static const struct ctl_row session_process_rows[] = {
	{.name = "new",
		.mode = 0600,
		.kind = CTL_DOC,
		.grammar = "W as processes/new, where the session is and with its variables; R in the same "
				   "opening: its id. It ends with the session",
		.submit = process_submit_new},
	{.name = NULL},
};

static const struct ctl_dir session_processes_dir = {
	.help = "Starts processes where the session is; they are in ctl/processes/.",
	.rows = session_process_rows,
};

static const struct ctl_row session_rows[] = {
	{.name = "exec",
		.mode = 0666,
		.kind = CTL_TALK,
		.begin = ctl_exec_begin,
		.talk = &ctl_exec_talk,
		.stream = &ctl_exec_stream,
		.grammar = "as ctl/exec, in this shell, one command after the other"},
	{.name = "exec.json",
		.mode = 0666,
		.kind = CTL_TALK,
		.begin = ctl_exec_begin,
		.talk = &ctl_exec_json_talk,
		.stream = &ctl_exec_json_stream,
		.max = 64 * 1024 * 1024,
		.grammar = "as ctl/exec.json, in this shell; cwd and env hold for one command"},
	{.name = "runs",
		.mode = 0700,
		.kind = CTL_DIR,
		.dir = &ctl_runs_dir,
		.grammar = "N/: cmd stdout stderr logs exit started duration of its newest runs"},
	{.name = "last",
		.mode = 0777,
		.kind = CTL_LINK,
		.target = ctl_runs_last,
		.grammar = "its newest run"},
	{.name = "env",
		.mode = 0600,
		.kind = CTL_TEXT,
		.show = show_env,
		.store = store_env,
		.grammar =
			"W KEY=VALUE sets in this shell, KEY alone unsets; R what it was given from here"},
	{.name = "cwd",
		.mode = 0777,
		.kind = CTL_LINK,
		.target = cwd_target,
		.grammar = "its directory, as a link into the mount"},
	{.name = "processes",
		.mode = 0700,
		.kind = CTL_DIR,
		.dir = &session_processes_dir,
		.grammar = "new starts a process where the session is"},
	{.name = "ctl",
		.mode = 0666,
		.kind = CTL_VERBS,
		.show = show_state,
		.verbs = session_verbs,
		.grammar = "R alive or ended CODE (the next command starts a new shell); W:"},
	{.name = NULL},
};

const struct ctl_dir ctl_session_dir = {
	.help = "One session: a shell that keeps its state.",
	.rows = session_rows,
	.list_help = true,
};
