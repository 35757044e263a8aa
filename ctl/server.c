/*
 * MNT/ctl/: the server as a whole. Answers from what is known here; no request is sent.
 */
#include <errno.h>
#include <malloc.h>
#include <string.h>

#include "kinds.h"
#include "log.h"

static void show_can(struct server *server, const char *name, struct buf *out)
{
	const char *why = server_cannot(server, name);
	if (why)
		buf_printf(out, "cannot %s %s\n", name, why);
	else
		buf_printf(out, "can %s\n", name);
}

/* What a sandbox has is what stands in its table: the two cannot differ. */
int ctl_show_server(const struct ctl_ref *ref, struct call *c, struct buf *out)
{
	(void)c;
	server_describe(ref->server, out);
	show_can(ref->server, "create", out);
	show_can(ref->server, "files", out);
	for (const struct ctl_row *row = ctl_sandbox_dir.rows; row->name; row++)
		show_can(ref->server, row->name, out);
	return 0;
}

int ctl_show_stats(const struct ctl_ref *ref, struct call *c, struct buf *out)
{
	(void)c;
	server_describe_stats(ref->server, out);
	return 0;
}

int ctl_show_log(const struct ctl_ref *ref, struct call *c, struct buf *out)
{
	(void)ref;
	(void)c;
	log_describe(out);
	return 0;
}

static const char *const levels[] = {
	[LOG_LEVEL_ERROR] = "error", [LOG_LEVEL_INFO] = "info", [LOG_LEVEL_DEBUG] = "debug"};

static int show_settings(const struct ctl_ref *ref, struct call *c, struct buf *out)
{
	(void)ref;
	(void)c;
	buf_printf(out, "log %s\n", levels[log_get_level()]);
	return 0;
}

static int verb_log(const struct ctl_ref *ref, struct call *c, int argc, char **argv)
{
	(void)ref;
	(void)argc;
	for (size_t i = 0; i < sizeof levels / sizeof levels[0]; i++) {
		if (strcmp(argv[1], levels[i]) == 0) {
			log_set_level((enum log_level)i);
			return 0;
		}
	}
	return call_fault(c, EINVAL, NULL, "log %s: no such level; error, info or debug", argv[1]);
}

static bool drop_one(struct sandbox *sb, void *arg)
{
	(void)arg;
	sandbox_drop_caches(sb);
	return true;
}

static int verb_drop_caches(const struct ctl_ref *ref, struct call *c, int argc, char **argv)
{
	(void)c;
	(void)argc;
	(void)argv;
	server_each(ref->server, drop_one, NULL);
	(void)malloc_trim(0); /* what was freed goes back to the system; nothing to give is as well */
	return 0;
}

/* For servers whose names live in the user's state file alone; the servers of this version keep them. */
static int verb_forget(const struct ctl_ref *ref, struct call *c, int argc, char **argv)
{
	(void)argc;
	struct sandbox *sb = server_find(ref->server, argv[1]);
	if (!sb)
		return call_fault(c, ENOENT, NULL, "forget %s: no such sandbox", argv[1]);
	sandbox_put(sb);
	return call_fault(c, ENOTSUP, NULL,
		"forget %s: this server keeps its sandboxes itself; rmdir %s or `echo destroy > "
		"%s/ctl/ctl` "
		"ends it",
		argv[1], argv[1], argv[1]);
}

static const struct ctl_verb server_verbs[] = {
	{"forget", 1, 1, verb_forget, "forget NAME"},
	{"drop-caches", 0, 0, verb_drop_caches, "drop-caches"},
	{"log", 1, 1, verb_log, "log error|info|debug"},
	{NULL, 0, 0, NULL, NULL},
};

static const struct ctl_row server_rows[] = {
	CTL_SERVER_ROWS,
	{.name = "error",
		.mode = 0444,
		.kind = CTL_TEXT,
		.show = ctl_show_error,
		.grammar = "R the newest failure that belongs to no sandbox: code errno message suggestion "
				   "operation path time pid retry"},
	{.name = "ctl",
		.mode = 0666,
		.kind = CTL_VERBS,
		.show = show_settings,
		.verbs = server_verbs,
		.grammar = "R the settings, can be written back; W:"},
	{.name = NULL},
};

const struct ctl_dir ctl_server_dir = {
	.help =
		"The server as a whole; NAME/ctl/ is of one sandbox. R what a read gives, W what a write "
		"takes.",
	.rows = server_rows,
	.list_help = true,
};
