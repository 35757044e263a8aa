/*
 * The table of routes, the way through it, and the routes that say nothing but a line.
 */
#include "routes.h"

#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

#include "json_make.h"
#include "text.h"
#include "version.h"

static enum MHD_Result route_hello(struct request *r)
{
	return reply_text(r, 200, "sandboxd\n");
}

static enum MHD_Result route_ping(struct request *r)
{
	struct json_object *o = answer_new();
	json_add(o, "status", json_object_new_string("healthy"));
	return reply_json(r, 200, o);
}

static enum MHD_Result route_version(struct request *r)
{
	/* The image that carries the server says which version of the API it stands for. */
	const char *version = getenv("SANDBOX_VERSION");
	struct json_object *o = answer_new();
	json_add(o, "version", text_json_str(version && *version ? version : SANDBOXFS_VERSION));
	json_add(o, "server", json_object_new_string("sandboxd " SANDBOXFS_VERSION));
	return reply_json(r, 200, o);
}

static enum MHD_Result route_commands(struct request *r)
{
	/* Registered and broken in the official server; clients may use it to tell a server from a stranger. */
	return reply_error(r, ERR_UNKNOWN, NULL, NULL, "Invalid endpoint");
}

static const struct route table[] = {
	{"GET", "/", route_hello},
	{"GET", "/api/ping", route_ping},
	{"GET", "/api/version", route_version},
	{"GET", "/api/commands", route_commands},
	{"POST", "/api/execute", route_execute},
	{"POST", "/api/execute/stream", route_execute_stream},
	{"POST", "/api/read", route_read},
	{"POST", "/api/read/stream", route_read_stream},
	{"POST", "/api/write", route_write},
	{"POST", "/api/delete", route_delete},
	{"POST", "/api/rename", route_rename},
	{"POST", "/api/move", route_move},
	{"POST", "/api/mkdir", route_mkdir},
	{"POST", "/api/exists", route_exists},
	{"POST", "/api/list-files", route_list_files},
	{"POST", "/api/port-watch", route_port_watch},
	{"POST", "/api/watch", route_watch},
	{"POST", "/api/watch/check", route_watch_check},
	{"POST", "/api/process/start", route_process_start},
	{"GET", "/api/process/list", route_process_list},
	{"DELETE", "/api/process/kill-all", route_process_kill_all},
	{"GET", "/api/process/*", route_process_get},
	{"DELETE", "/api/process/*", route_process_kill},
	{"GET", "/api/process/*/logs", route_process_logs},
	{"GET", "/api/process/*/stream", route_process_stream},
	{"GET", "/api/sandboxfs/archive", route_archive_get},
	{"PUT", "/api/sandboxfs/archive", route_archive_put},
	{"POST", "/api/backup/create", route_backup_create},
	{"POST", "/api/backup/restore", route_backup_restore},
	{"POST", "/api/git/checkout", route_git_checkout},
	{"POST", "/api/sandboxfs/git", route_git_stream},
	{"GET", "/api/interpreter/health", route_interpreter_health},
	{"POST", "/api/contexts", route_context_create},
	{"GET", "/api/contexts", route_context_list},
	{"GET", "/api/contexts/*", route_context_get},
	{"DELETE", "/api/contexts/*", route_context_delete},
	{"POST", "/api/contexts/*/interrupt", route_context_interrupt},
	{"POST", "/api/contexts/*/restart", route_context_restart},
	{"POST", "/api/contexts/*/variables", route_context_variables},
	{"POST", "/api/execute/code", route_execute_code},
	{"POST", "/api/session/create", route_session_create},
	{"GET", "/api/session/list", route_session_list},
	{"POST", "/api/session/delete", route_session_delete},
	{"GET", "/api/sandboxfs/session", route_session_get},
	{"POST", "/api/sandboxfs/session/signal", route_session_signal},
	{"POST", "/api/sandboxfs/batch", route_batch},
	{"GET", "/api/sandboxfs/relay/*", route_relay},
	{"POST", "/api/sandboxfs/changes", route_changes},
	{"POST", "/api/sandboxfs/commands", route_frames_start},
	{"POST", "/api/sandboxfs/commands/*/attach", route_frames_attach},
	{"POST", "/api/sandboxfs/commands/*/signal", route_frames_signal},
	{"POST", "/api/sandboxfs/commands/*/input", route_frames_input},
	{"POST", "/api/sandboxfs/commands/*/resize", route_frames_resize},
	{"GET", "/ws/pty", route_ws_pty},
	{"GET", "/api/sandboxfs/commands/*/output", route_frames_output},
	{"GET", "/api/sandboxfs/commands/*", route_frames_get},
	{"DELETE", "/api/sandboxfs/commands/*", route_frames_forget},
};

route_body_handler *route_body(const struct route *route)
{
	return route && route->handle == route_archive_put ? body_archive_put : NULL;
}

/* Does path match, and where is its variable part? */
static bool path_matches(const char *pattern, const char *path, const char **part, size_t *n)
{
	const char *star = strchr(pattern, '*');
	if (!star)
		return strcmp(pattern, path) == 0;
	size_t before = (size_t)(star - pattern);
	if (strncmp(pattern, path, before) != 0)
		return false;
	*part = path + before;
	*n = strcspn(*part, "/");
	return *n && strcmp(*part + *n, star + 1) == 0;
}

const struct route *route_find(const char *method, const char *path, char **id)
{
	for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
		const char *part = NULL;
		size_t n = 0;
		if (strcmp(table[i].method, method) != 0 || !path_matches(table[i].path, path, &part, &n))
			continue;
		if (part) {
			*id = strndup(part, n);
			if (!*id)
				return NULL;
		}
		return &table[i];
	}
	return NULL;
}
