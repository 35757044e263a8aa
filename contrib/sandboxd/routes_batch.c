/*
 * The file protocol as a route: a batch in, its reply out. What a batch means is fileop_server.h's.
 */
#include <errno.h>

#include "common.h"
#include "fileop.h"
#include "fileop_server.h"
#include "routes.h"

enum MHD_Result route_batch(struct request *r)
{
	if (r->body.size > FILEOP_MAX_BATCH)
		return reply_error(r, ERR_FILE_TOO_LARGE, NULL, NULL, "A batch has at most %d bytes",
			(int)FILEOP_MAX_BATCH);
	AUTO_BUF reply = BUF_INIT;
	int err =
		fileop_server_run(r->server->files, r->body.data ? r->body.data : "", r->body.size, &reply);
	/* The batch may lie in memory for as long as its reply is sent: it is not needed any more. */
	buf_release(&r->body);
	if (err == -EBADMSG)
		return reply_error(r, ERR_VALIDATION, NULL, NULL, "The body is not a batch");
	if (err < 0 || buf_error(&reply) < 0)
		return reply_error(r, ERR_INTERNAL, NULL, NULL, "out of memory");
	return reply_bytes(r, 200, "application/octet-stream", &reply, NULL);
}
