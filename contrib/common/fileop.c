/*
 * The format of the file protocol (fileop.h): how a request is written by the client, and how
 * attributes and replies are written and read by either end. Owns nothing; touches neither files nor
 * the network.
 */
#include "fileop.h"

#include <errno.h>
#include <string.h>

enum {
	MAX_ERRNO =
		133 /* EHWPOISON, the last of Linux: the kernel leaves a request open that is answered with more than 511 */
	,
	COUNT_AT = 40 /* offset of count in a request: behind magic, version, 0, client, seq, acked */
};

static void put_time(struct buf *b, const struct timespec *t)
{
	buf_u64(b, (uint64_t)t->tv_sec);
	buf_u32(b, (uint32_t)t->tv_nsec);
}

static void get_time(struct reader *r, struct timespec *t)
{
	t->tv_sec = (time_t)reader_u64(r);
	uint32_t nsec = reader_u32(r);
	if (nsec >= 1000000000)
		r->bad = true;
	t->tv_nsec = nsec;
}

void fileop_begin_request(
	struct buf *b, const uint8_t client[FILEOP_ID_SIZE], uint64_t seq, uint64_t acked)
{
	buf_u32(b, FILEOP_MAGIC);
	buf_u16(b, FILEOP_VERSION);
	buf_u16(b, 0);
	buf_add(b, client, FILEOP_ID_SIZE);
	buf_u64(b, seq);
	buf_u64(b, acked);
	buf_u32(b, 0);
}

size_t fileop_begin_call(struct buf *b, enum fileop_code code, unsigned opflags)
{
	size_t at = b->size;
	buf_u32(b, 0);
	buf_u16(b, (uint16_t)code);
	buf_u16(b, (uint16_t)opflags);
	return at;
}

void fileop_end_call(struct buf *b, size_t at)
{
	if (!buf_error(b))
		buf_patch_u32(b, at, (uint32_t)(b->size - at - 4));
}

void fileop_end_request(struct buf *b, uint32_t count)
{
	if (!buf_error(b))
		buf_patch_u32(b, COUNT_AT, count);
}

void fileop_put_target(struct buf *b, const struct fileop_target *t)
{
	buf_u64(b, t->handle);
	buf_bytes(b, t->path ? t->path : "", t->path ? strlen(t->path) : 0);
	buf_u64(b, t->dev);
	buf_u64(b, t->ino);
}

void fileop_put_setattr(struct buf *b, const struct fileop_setattr *s)
{
	buf_u32(b, s->valid);
	buf_u32(b, s->mode);
	buf_u32(b, s->uid);
	buf_u32(b, s->gid);
	buf_u64(b, s->size);
	put_time(b, &s->atime);
	put_time(b, &s->mtime);
}

int fileop_get_setattr(struct reader *r, struct fileop_setattr *s)
{
	s->valid = reader_u32(r);
	s->mode = reader_u32(r);
	s->uid = reader_u32(r);
	s->gid = reader_u32(r);
	s->size = reader_u64(r);
	get_time(r, &s->atime);
	get_time(r, &s->mtime);
	return r->bad ? -EPROTO : 0;
}

void fileop_put_attr(struct buf *b, const struct fileop_attr *a)
{
	buf_u64(b, a->dev);
	buf_u64(b, a->ino);
	buf_u64(b, a->size);
	buf_u64(b, a->blocks);
	buf_u64(b, a->rdev);
	buf_u32(b, a->mode);
	buf_u32(b, a->nlink);
	buf_u32(b, a->uid);
	buf_u32(b, a->gid);
	buf_u32(b, a->blksize);
	buf_u32(b, a->flags);
	put_time(b, &a->atime);
	put_time(b, &a->mtime);
	put_time(b, &a->ctime);
	put_time(b, &a->btime);
}

int fileop_get_attr(struct reader *r, struct fileop_attr *a)
{
	a->dev = reader_u64(r);
	a->ino = reader_u64(r);
	a->size = reader_u64(r);
	a->blocks = reader_u64(r);
	a->rdev = reader_u64(r);
	a->mode = reader_u32(r);
	a->nlink = reader_u32(r);
	a->uid = reader_u32(r);
	a->gid = reader_u32(r);
	a->blksize = reader_u32(r);
	a->flags = reader_u32(r);
	get_time(r, &a->atime);
	get_time(r, &a->mtime);
	get_time(r, &a->ctime);
	get_time(r, &a->btime);
	/* A size that no off_t holds would turn negative further up. */
	return r->bad || a->size > INT64_MAX ? -EPROTO : 0;
}

int fileop_get_reply(struct reader *r, uint32_t count, struct fileop_reply *out)
{
	uint32_t magic = reader_u32(r);
	uint16_t version = reader_u16(r);
	uint16_t zero = reader_u16(r);
	const void *boot = reader_take(r, FILEOP_ID_SIZE);
	if (boot)
		memcpy(out->boot, boot, FILEOP_ID_SIZE);
	out->workspace_ino = reader_u64(r);
	out->avail = reader_u64(r);
	out->count = reader_u32(r);
	if (r->bad || magic != FILEOP_MAGIC || version != FILEOP_VERSION || zero || out->count != count)
		return -EPROTO;
	return 0;
}

int fileop_get_result(struct reader *r, struct reader *body)
{
	uint32_t length = reader_u32(r);
	const void *p = reader_take(r, length);
	if (!p) {
		r->bad = true;
		reader_init(body, "", 0);
		return -EPROTO;
	}
	reader_init(body, p, length);
	uint32_t err = reader_u32(body);
	if (body->bad || err > MAX_ERRNO)
		return -EPROTO;
	return -(int)err;
}
