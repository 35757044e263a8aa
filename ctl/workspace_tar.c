/*
 * workspace.tar: /workspace as a tar, both ways, as it goes (archive.h). What was written before is in the sandbox when it is packed; after
 * an unpacking nothing of before is served. Owns the state of each opening.
 */
#include "workspace_tar.h"

#include <errno.h>
#include <stdlib.h>

#include "archive.h"
#include "cleanup.h"

static const char directory[] = "/workspace";

/* --- reading --- */

struct packing {
	struct sandbox *sb; /* borrowed: the opening holds its node */
	struct archive_reader *reader;
};

static void wake_stream(void *stream)
{
	ctl_stream_wake(stream);
}

static int pack_open(const struct ctl_ref *ref, struct call *c, struct ctl_stream *s, void **cursor)
{
	AUTO_FREE struct packing *k = calloc(1, sizeof *k);
	if (!k)
		return -ENOMEM;
	k->sb = ref->sandbox;
	int err = sandbox_barrier(k->sb, c);
	if (!err)
		err = archive_reader_open(k->sb, c, directory, "", wake_stream, s, &k->reader);
	if (!err)
		*cursor = steal(k);
	return err;
}

static ssize_t pack_next(void *cursor, void *p, size_t n)
{
	struct packing *k = cursor;
	ssize_t got = archive_reader_next(k->reader, p, n);
	if (got < 0 && got != -EAGAIN) {
		/* An error in the middle of reading has no call of its own. */
		struct call c;
		call_init(&c, 0);
		archive_reader_fault(k->reader, &c);
		call_fault_prefix(&c, "workspace.tar: ");
		sandbox_note_fault(k->sb, &c.fault);
		call_destroy(&c);
	}
	return got;
}

static void pack_close(void *cursor)
{
	struct packing *k = cursor;
	archive_reader_close(k->reader);
	free(k);
}

const struct ctl_stream_ops workspace_tar_stream = {pack_open, pack_next, pack_close};

/* --- writing --- */

struct unpacking {
	struct sandbox *sb; /* borrowed, as above */
	struct archive_writer *writer;
};

static int unpack_open(const struct ctl_ref *ref, struct call *c, void **state)
{
	AUTO_FREE struct unpacking *k = calloc(1, sizeof *k);
	if (!k)
		return -ENOMEM;
	k->sb = ref->sandbox;
	int err = sandbox_barrier(k->sb, c);
	if (!err)
		err = archive_writer_open(k->sb, c, directory, "", &k->writer);
	if (!err)
		*state = steal(k);
	return err;
}

static int unpack_write(void *state, struct call *c, const void *p, size_t n)
{
	return archive_writer_write(((struct unpacking *)state)->writer, c, p, n);
}

static int unpack_finish(void *state, struct call *c)
{
	struct unpacking *k = state;
	uint64_t entries;
	int err = archive_writer_finish(k->writer, c, &entries);
	/* Also of what was unpacked before it failed. */
	sandbox_invalidate(k->sb);
	return err;
}

static void unpack_close(void *state)
{
	struct unpacking *k = state;
	archive_writer_close(k->writer);
	sandbox_invalidate(k->sb);
	free(k);
}

const struct ctl_upload_ops workspace_tar_upload = {
	unpack_open, unpack_write, unpack_finish, unpack_close};
