/*
 * The table of routes: method, path, handler. One row per route; a `*` in a path stands for one part, which the
 * handler finds in request.id.
 */
#ifndef SANDBOXD_ROUTES_H
#define SANDBOXD_ROUTES_H

#include "http.h"

struct route {
	const char *method;
	const char *path;
	enum MHD_Result (*handle)(struct request *r);
};

/* Takes a part of a body that is not kept in memory. */
typedef enum MHD_Result route_body_handler(struct request *r, const char *data, size_t n);
/* NULL: the body is collected, and the route sees it whole. route may be NULL. */
route_body_handler *route_body(const struct route *route);

/* The row, and a new string in *id if it has a variable part; NULL: there is none. */
const struct route *route_find(const char *method, const char *path, char **id);

/* routes_execute.c */
enum MHD_Result route_execute(struct request *r);
enum MHD_Result route_execute_stream(struct request *r);
/* routes_process.c */
enum MHD_Result route_process_start(struct request *r);
enum MHD_Result route_process_list(struct request *r);
enum MHD_Result route_process_get(struct request *r);
enum MHD_Result route_process_kill(struct request *r);
enum MHD_Result route_process_kill_all(struct request *r);
enum MHD_Result route_process_logs(struct request *r);
enum MHD_Result route_process_stream(struct request *r);
/* routes_files.c */
enum MHD_Result route_delete(struct request *r);
enum MHD_Result route_rename(struct request *r);
enum MHD_Result route_move(struct request *r);
enum MHD_Result route_mkdir(struct request *r);
enum MHD_Result route_exists(struct request *r);
/* routes_content.c */
enum MHD_Result route_read(struct request *r);
enum MHD_Result route_read_stream(struct request *r);
/* routes_write.c */
enum MHD_Result route_write(struct request *r);
/* routes_list.c */
enum MHD_Result route_list_files(struct request *r);
/* routes_ports.c */
enum MHD_Result route_port_watch(struct request *r);
/* relay.c */
enum MHD_Result route_relay(struct request *r);
/* routes_watch.c */
enum MHD_Result route_watch(struct request *r);
enum MHD_Result route_watch_check(struct request *r);
/* routes_changes.c */
enum MHD_Result route_changes(struct request *r);
/* routes_frames.c */
enum MHD_Result route_frames_start(struct request *r);
enum MHD_Result route_frames_attach(struct request *r);
enum MHD_Result route_frames_signal(struct request *r);
enum MHD_Result route_frames_get(struct request *r);
enum MHD_Result route_frames_output(struct request *r);
enum MHD_Result route_frames_forget(struct request *r);
/* routes_pty.c */
enum MHD_Result route_ws_pty(struct request *r);
enum MHD_Result route_frames_input(struct request *r);
enum MHD_Result route_frames_resize(struct request *r);
/* routes_session.c */
enum MHD_Result route_session_create(struct request *r);
enum MHD_Result route_session_list(struct request *r);
enum MHD_Result route_session_delete(struct request *r);
enum MHD_Result route_session_get(struct request *r);
enum MHD_Result route_session_signal(struct request *r);
/* routes_batch.c */
enum MHD_Result route_batch(struct request *r);
/* routes_archive.c */
enum MHD_Result route_archive_get(struct request *r);
enum MHD_Result route_archive_put(struct request *r);
route_body_handler body_archive_put;
/* routes_backup.c */
enum MHD_Result route_backup_create(struct request *r);
enum MHD_Result route_backup_restore(struct request *r);
/* routes_git.c */
enum MHD_Result route_git_checkout(struct request *r);
enum MHD_Result route_git_stream(struct request *r);
/* routes_code.c */
enum MHD_Result route_interpreter_health(struct request *r);
enum MHD_Result route_context_create(struct request *r);
enum MHD_Result route_context_list(struct request *r);
enum MHD_Result route_context_get(struct request *r);
enum MHD_Result route_context_delete(struct request *r);
enum MHD_Result route_context_interrupt(struct request *r);
enum MHD_Result route_context_restart(struct request *r);
enum MHD_Result route_context_variables(struct request *r);
enum MHD_Result route_execute_code(struct request *r);

#endif
