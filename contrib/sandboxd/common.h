/*
 * What several routes share: the fields of a request to run something, paths, and the events of a command's output.
 */
#ifndef SANDBOXD_COMMON_H
#define SANDBOXD_COMMON_H

#include "commands.h"
#include "http.h"

/* --- run.c: requests to run something --- */

/* Which shell a request means (protocol: sessionId). */
#define SESSION_DEFAULT_ID "default"
enum session_kind { SESSION_NONE /* __DISABLE_SESSION__ */, SESSION_DEFAULT, SESSION_NAMED };
/* False: *out is the answer. name is borrowed from the request, NULL if none was given. empty_is_absent: as execute does, which looks at header and query too. */
bool run_session(struct request *r, bool empty_is_absent, enum session_kind *kind,
	const char **name, enum MHD_Result *out);
/*
 * Fills spec from command, cwd, env, timeoutMs of the body. False: *out is the answer. blank_refused: 400 INVALID_COMMAND.
 */
bool run_spec(
	struct request *r, bool blank_refused, struct command_spec *spec, enum MHD_Result *out);
/*
 * Puts the session into spec (new reference, the caller puts it), made if there is none. in_shell: to run in its
 * shell, else beside it, in its place and with its variables. False: *out is the answer.
 */
bool run_place(struct request *r, enum session_kind kind, const char *name, bool in_shell,
	struct command_spec *spec, enum MHD_Result *out);
/* The answer for a command whose shell was killed under it. */
enum MHD_Result run_session_lost(struct request *r, struct command *c);
/* The answer to a start that failed. */
enum MHD_Result run_failed(struct request *r, enum error_code code, const char *operation,
	const struct command_spec *spec, int err);
/* A string of a view up to its end, repaired. NULL: out of memory. */
struct json_object *run_text(struct command *c, enum spool_view view, uint64_t end);

/* --- events.c: the output of a command as events --- */

enum event_style { EVENTS_EXECUTE, EVENTS_PROCESS };
/* Takes the reference c. */
enum MHD_Result reply_command_events(struct request *r, struct command *c, enum event_style style);

/* --- paths.c --- */

/*
 * The path in a member: a new absolute path (relative ones are from the workspace), or NULL and *out is the
 * answer. given: what the client wrote, borrowed.
 */
char *request_path(struct request *r, const char *member, enum error_code code, const char **given,
	enum MHD_Result *out);
/* The same, but relative ones are from the directory where the shell of the body's session is. */
char *request_session_path(struct request *r, const char *member, enum error_code code,
	const char **given, enum MHD_Result *out);
/* {"path":…,"operation":…} */
struct json_object *path_context(const char *path, const char *operation);
/* 404 FILE_NOT_FOUND */
enum MHD_Result reply_no_file(struct request *r, const char *path, const char *operation);
/* 500 FILESYSTEM_ERROR with context.stderr; exit_code <0: left out. */
enum MHD_Result reply_filesystem(struct request *r, const char *path, const char *operation,
	int exit_code, const char *fmt, ...) __attribute__((format(printf, 5, 6)));
/* {"success":true,"path":path} */
struct json_object *path_answer(const char *path);

#endif
