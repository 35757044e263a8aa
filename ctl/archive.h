/*
 * Whole directories of a sandbox as tar streams, over sandboxd's archive routes: what workspace.tar and backups/ have in common.
 *
 * A reader and a writer have a queue of about a megabyte between the HTTP loop and who reads or writes here: a full queue pauses the
 * stream, so a tar of any size takes no more memory. Neither is taken up again when the link breaks: it has failed then, and says so.
 */
#ifndef CTL_ARCHIVE_H
#define CTL_ARCHIVE_H

#include <stdint.h>
#include <sys/types.h>

#include "buf.h"
#include "call.h"
#include "sandbox.h"

/* Adds `&NAME=VALUE` with the value encoded. */
void archive_query(struct buf *query, const char *name, const char *value);

struct archive_reader;
/*
 * Begins to pack dir of the sandbox; query: "" or more of it (archive_query). Returns when the server has accepted: 0 and *out new, or an errno with a
 * fault. wake(arg) is called from any thread when there is something to take.
 */
int archive_reader_open(struct sandbox *sb, struct call *c, const char *dir, const char *query,
	void (*wake)(void *arg), void *arg, struct archive_reader **out);
/* >0 bytes, 0 all of it was had, -EAGAIN nothing yet, or why it is not whole (archive_reader_fault has the sentence). Does not wait. */
ssize_t archive_reader_next(struct archive_reader *r, void *p, size_t n);
/* Fills c's fault with what next failed with. */
void archive_reader_fault(struct archive_reader *r, struct call *c);
/* No wakes come after it. */
void archive_reader_close(struct archive_reader *r);

struct archive_writer;
/* Begins to unpack into dir. 0 and *out new. */
int archive_writer_open(struct sandbox *sb, struct call *c, const char *dir, const char *query,
	struct archive_writer **out);
/* Waits for room. 0, or an errno: -EINTR, or how the unpacking has failed (with a fault). */
int archive_writer_write(struct archive_writer *w, struct call *c, const void *p, size_t n);
/* All was written: waits until it is unpacked. 0 (*entries: how many), or an errno with a fault. -EINTR: it may be asked again. */
int archive_writer_finish(struct archive_writer *w, struct call *c, uint64_t *entries);
/* What was not finished is cut: the server keeps what it has unpacked so far, or with replace=1 nothing of it. */
void archive_writer_close(struct archive_writer *w);

#endif
