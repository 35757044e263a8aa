/*
 * delete, rename, move, mkdir, exists: what the official server does with rm, mv, mkdir and test, and with their words.
 * Owns nothing. mv is really run, as it copies between file systems and moves into directories.
 */
#include <errno.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "common.h"
#include "json_make.h"
#include "routes.h"
#include "text.h"

/* Every route here takes a body and the session it is asked for in. */
static bool begin(struct request *r, enum MHD_Result *result)
{
	enum session_kind kind;
	const char *session;
	return request_json(r, false, result) && run_session(r, false, &kind, &session, result);
}

enum MHD_Result route_delete(struct request *r)
{
	static const char operation[] = "file.delete";
	enum MHD_Result result;
	const char *given;
	if (!begin(r, &result))
		return result;
	AUTO_FREE char *path = request_session_path(r, "path", ERR_VALIDATION, &given, &result);
	if (!path)
		return result;
	struct stat st;
	if (stat(path, &st) < 0)
		return reply_no_file(r, path, operation);
	if (S_ISDIR(st.st_mode))
		return reply_error(r, ERR_IS_DIRECTORY, path_context(path, operation), operation,
			"Cannot delete directory with deleteFile: %s", path);
	if (unlink(path) < 0)
		return reply_filesystem(
			r, path, operation, 1, "rm: cannot remove '%s': %s\n", path, strerrordesc_np(errno));
	return reply_json(r, 200, path_answer(given));
}

/* *answered: it failed, and the result is the answer; otherwise nothing was answered yet. */
static enum MHD_Result run_mv(
	struct request *r, const char *from, const char *to, const char *operation, bool *answered)
{
	*answered = true;
	AUTO_BUF script = BUF_INIT;
	buf_str(&script, "exec mv -- ");
	buf_shell_quote(&script, from);
	buf_char(&script, ' ');
	buf_shell_quote(&script, to);
	if (buf_error(&script) < 0)
		return reply_error(r, ERR_INTERNAL, NULL, operation, "out of memory");
	struct command_spec spec = {.text = script.data, .size = script.size, .timeout_ms = -1};
	struct command *c;
	int err = commands_start(r->server->commands, &spec, EXISTS_REPLACE, &c, NULL);
	if (err < 0)
		return run_failed(r, ERR_FILESYSTEM, operation, &spec, err);
	while (command_wait_output(c, SPOOL_BOTH, UINT64_MAX, text_monotonic_ms() + HTTP_TICK_MS))
		continue;
	AUTO_BUF words = BUF_INIT;
	int code = c->exit_code;
	if (code && command_output(c, SPOOL_STDERR, UINT64_MAX, &words) < 0)
		buf_clear(&words);
	(void)commands_forget(r->server->commands, c->id);
	commands_put(c);
	if (code)
		return reply_filesystem(r, from, operation, code, "%s", words.data ? words.data : "");
	*answered = false;
	return MHD_YES;
}

static enum MHD_Result move_file(
	struct request *r, const char *from_member, const char *to_member, const char *operation)
{
	enum MHD_Result result;
	const char *from_given, *to_given;
	if (!begin(r, &result))
		return result;
	AUTO_FREE char *from =
		request_session_path(r, from_member, ERR_SECURITY_VALIDATION, &from_given, &result);
	if (!from)
		return result;
	AUTO_FREE char *to =
		request_session_path(r, to_member, ERR_SECURITY_VALIDATION, &to_given, &result);
	if (!to)
		return result;
	struct stat st;
	if (stat(from, &st) < 0)
		return reply_no_file(r, from, operation);
	bool answered;
	result = run_mv(r, from, to, operation, &answered);
	if (answered)
		return result;
	struct json_object *o = path_answer(from_given);
	json_add(o, "newPath", text_json_str(to_given));
	return reply_json(r, 200, o);
}

enum MHD_Result route_rename(struct request *r)
{
	return move_file(r, "oldPath", "newPath", "file.rename");
}

enum MHD_Result route_move(struct request *r)
{
	return move_file(r, "sourcePath", "destinationPath", "file.move");
}

/* Makes the directories that lead to path and path itself, as mkdir -p does. 0 or a negative errno. */
static int make_all(char *path)
{
	for (char *slash = path + 1;; slash++) {
		slash = strchr(slash, '/');
		if (slash)
			*slash = '\0';
		struct stat st;
		int err = mkdir(path, 0755) < 0 ? errno : 0;
		if (err == EEXIST && (stat(path, &st) < 0 || !S_ISDIR(st.st_mode)))
			err = slash ? ENOTDIR : EEXIST;
		else if (err == EEXIST)
			err = 0;
		/* A directory that is there may lie where none may be made: /workspace on a read-only root. */
		if (err && err != EEXIST && stat(path, &st) == 0 && S_ISDIR(st.st_mode))
			err = 0;
		if (slash)
			*slash = '/';
		if (err || !slash)
			return -err;
	}
}

enum MHD_Result route_mkdir(struct request *r)
{
	static const char operation[] = "directory.create";
	enum MHD_Result result;
	const char *given;
	if (!begin(r, &result))
		return result;
	AUTO_FREE char *path = request_session_path(r, "path", ERR_VALIDATION, &given, &result);
	if (!path)
		return result;
	bool recursive = json_flag(r->json, "recursive", false);
	int err = recursive ? make_all(path) : mkdir(path, 0755) < 0 ? -errno : 0;
	if (err < 0)
		return reply_filesystem(r, path, operation, 1, "mkdir: cannot create directory '%s': %s\n",
			path, strerrordesc_np(-err));
	struct json_object *o = path_answer(given);
	json_add(o, "recursive", json_object_new_boolean(recursive));
	return reply_json(r, 200, o);
}

enum MHD_Result route_exists(struct request *r)
{
	enum MHD_Result result;
	const char *given;
	if (!begin(r, &result))
		return result;
	AUTO_FREE char *path = request_session_path(r, "path", ERR_VALIDATION, &given, &result);
	if (!path)
		return result;
	struct stat st;
	struct json_object *o = path_answer(given);
	json_add(o, "exists", json_object_new_boolean(stat(path, &st) == 0));
	return reply_json(r, 200, o);
}
