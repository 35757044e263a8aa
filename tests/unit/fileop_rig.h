/*
 * What the tests of the file protocol share: a server on a private directory and one function per call, each a batch of
 * one. Paths are given relative to the directory unless they begin with a slash.
 */
#ifndef SBX_FILEOP_RIG_H
#define SBX_FILEOP_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "fileop_internal.h"

struct rig {
	struct fileop_server *s;
	char dir[64];
	uint8_t client[FILEOP_ID_SIZE];
	uint64_t seq; /* of the next batch; 0: not remembered */
	uint64_t acked;
	struct buf request, reply;
	struct fileop_reply head;
	struct reader body;
	char *kept[4]; /* what rig_path made last */
	unsigned next_kept;
};

static inline int rig_remove_one(
	const char *path, const struct stat *st, int type, struct FTW *where)
{
	(void)st;
	(void)where;
	if (type == FTW_DNR || type == FTW_DP || type == FTW_D)
		chmod(path, 0700);
	return remove(path);
}

static inline void rig_start(struct rig *r, uint64_t min_free)
{
	memset(r, 0, sizeof(*r));
	umask(0);
	strcpy(r->dir, "/tmp/fileop-test-XXXXXX");
	assert_non_null(mkdtemp(r->dir));
	struct fileop_server_config config = {.workspace = r->dir, .min_free = min_free};
	assert_int_equal(fileop_server_new(&config, &r->s), 0);
	memset(r->client, 7, sizeof(r->client));
}

static inline void rig_release(struct rig *r)
{
	buf_release(&r->request);
	buf_release(&r->reply);
	for (size_t i = 0; i < 4; i++)
		free(steal(r->kept[i]));
}

static inline void rig_stop(struct rig *r)
{
	fileop_server_free(r->s);
	rig_release(r);
	assert_int_equal(nftw(r->dir, rig_remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

static inline int rig_setup(void **state)
{
	struct rig *r = calloc(1, sizeof(*r));
	rig_start(r, 0);
	*state = r;
	return 0;
}

static inline int rig_teardown(void **state)
{
	rig_stop(*state);
	free(*state);
	return 0;
}

/* A path in the rig's directory, in memory that lives until the fourth call from then. */
static inline char *rig_path(struct rig *r, const char *name)
{
	char **p = &r->kept[r->next_kept++ % 4];
	free(*p);
	if (!name)
		name = "";
	if (*name == '/')
		*p = strdup(name);
	else if (asprintf(p, "%s/%s", r->dir, name) < 0)
		abort();
	return *p;
}

static inline void rig_begin(struct rig *r)
{
	buf_clear(&r->request);
	fileop_begin_request(&r->request, r->client, r->seq, r->acked);
}

static inline size_t rig_call(struct rig *r, enum fileop_code code)
{
	return fileop_begin_call(&r->request, code, 0);
}

static inline void rig_str(struct rig *r, const char *s)
{
	buf_bytes(&r->request, s, strlen(s));
}

/* Sends what was begun; the reader then stands at the first result. */
static inline struct reader rig_send(struct rig *r, uint32_t count)
{
	struct reader in;
	fileop_end_request(&r->request, count);
	buf_clear(&r->reply);
	assert_int_equal(buf_error(&r->request), 0);
	assert_int_equal(fileop_server_run(r->s, r->request.data, r->request.size, &r->reply), 0);
	if (r->seq)
		r->seq++;
	reader_init(&in, r->reply.data, r->reply.size);
	assert_int_equal(fileop_get_reply(&in, count, &r->head), 0);
	return in;
}

/* Ends the one call begun at `at`, sends it, and leaves its body in r->body. */
static inline int rig_one(struct rig *r, size_t at)
{
	fileop_end_call(&r->request, at);
	struct reader in = rig_send(r, 1);
	int err = fileop_get_result(&in, &r->body);
	assert_int_equal(in.left, 0);
	assert_false(in.bad);
	return err;
}

static inline void rig_attr(struct rig *r, struct fileop_attr *a)
{
	struct fileop_attr none;
	assert_int_equal(fileop_get_attr(&r->body, a ? a : &none), 0);
}

static inline void rig_target(struct rig *r, uint64_t handle, const char *path)
{
	struct fileop_target t = {handle, handle ? NULL : rig_path(r, path), 0, 0};
	fileop_put_target(&r->request, &t);
}

static inline int op_open(struct rig *r, uint64_t h, const char *path, uint32_t flags,
	uint32_t mode, struct fileop_attr *a)
{
	rig_begin(r);
	size_t at = rig_call(r, FILEOP_OPEN);
	buf_u64(&r->request, h);
	rig_str(r, rig_path(r, path));
	buf_u64(&r->request, 0);
	buf_u64(&r->request, 0);
	buf_u32(&r->request, flags);
	buf_u32(&r->request, mode);
	int err = rig_one(r, at);
	if (err)
		return err;
	rig_attr(r, a);
	int created = reader_u8(&r->body);
	return created | reader_u8(&r->body) << 1; /* 1: created, 2: staged */
}

static inline int op_handle(struct rig *r, enum fileop_code code, uint64_t h)
{
	rig_begin(r);
	size_t at = rig_call(r, code);
	buf_u64(&r->request, h);
	if (code == FILEOP_FSYNC)
		buf_u8(&r->request, 0);
	return rig_one(r, at);
}

static inline int op_close(struct rig *r, uint64_t h)
{
	return op_handle(r, FILEOP_CLOSE, h);
}

static inline int op_commit(struct rig *r, uint64_t h, struct fileop_attr *a)
{
	int err = op_handle(r, FILEOP_COMMIT, h);
	if (!err)
		rig_attr(r, a);
	return err;
}

static inline int op_salvage(struct rig *r, uint64_t h, const char *path, struct fileop_attr *a)
{
	rig_begin(r);
	size_t at = rig_call(r, FILEOP_SALVAGE);
	buf_u64(&r->request, h);
	rig_str(r, rig_path(r, path));
	int err = rig_one(r, at);
	if (!err)
		rig_attr(r, a);
	return err;
}

static inline int op_write(struct rig *r, uint64_t h, uint64_t off, const void *p, size_t n)
{
	rig_begin(r);
	size_t at = rig_call(r, FILEOP_WRITE);
	buf_u64(&r->request, h);
	buf_u64(&r->request, off);
	buf_bytes(&r->request, p, n);
	return rig_one(r, at);
}

/* The bytes are borrowed from the reply, *out NULL without any. Negative: errno. */
static inline ssize_t op_read(
	struct rig *r, uint64_t h, const char *path, uint64_t off, uint32_t n, const char **out)
{
	const char *ignored;
	out = out ? out : &ignored;
	*out = NULL;
	rig_begin(r);
	size_t at = rig_call(r, FILEOP_READ), got;
	rig_target(r, h, path);
	buf_u64(&r->request, off);
	buf_u32(&r->request, n);
	int err = rig_one(r, at);
	if (err)
		return err;
	*out = reader_bytes(&r->body, &got);
	return (ssize_t)got;
}

static inline int op_getattr(struct rig *r, uint64_t h, const char *path, struct fileop_attr *a)
{
	rig_begin(r);
	size_t at = rig_call(r, FILEOP_GETATTR);
	rig_target(r, h, path);
	int err = rig_one(r, at);
	if (!err)
		rig_attr(r, a);
	return err;
}

static inline int op_setattr(struct rig *r, uint64_t h, const char *path,
	const struct fileop_setattr *s, struct fileop_attr *a)
{
	rig_begin(r);
	size_t at = rig_call(r, FILEOP_SETATTR);
	rig_target(r, h, path);
	fileop_put_setattr(&r->request, s);
	int err = rig_one(r, at);
	if (!err)
		rig_attr(r, a);
	return err;
}

/* Calls of a path, and of a path and a number. */
static inline int op_path(struct rig *r, enum fileop_code code, const char *path)
{
	rig_begin(r);
	size_t at = rig_call(r, code);
	rig_str(r, rig_path(r, path));
	return rig_one(r, at);
}

static inline int op_make(struct rig *r, enum fileop_code code, const char *path, uint32_t mode)
{
	rig_begin(r);
	size_t at = rig_call(r, code);
	rig_str(r, rig_path(r, path));
	buf_u32(&r->request, mode);
	return rig_one(r, at);
}

static inline int op_symlink(struct rig *r, const char *path, const char *text)
{
	rig_begin(r);
	size_t at = rig_call(r, FILEOP_SYMLINK);
	rig_str(r, rig_path(r, path));
	rig_str(r, text);
	return rig_one(r, at);
}

static inline int op_rename(struct rig *r, const char *from, const char *to, uint32_t flags)
{
	rig_begin(r);
	size_t at = rig_call(r, FILEOP_RENAME);
	rig_str(r, rig_path(r, from));
	rig_str(r, rig_path(r, to));
	buf_u32(&r->request, flags);
	return rig_one(r, at);
}

static inline int op_link(struct rig *r, uint64_t h, const char *from, const char *to)
{
	rig_begin(r);
	size_t at = rig_call(r, FILEOP_LINK);
	rig_target(r, h, from);
	rig_str(r, rig_path(r, to));
	return rig_one(r, at);
}

static inline int op_readdir(struct rig *r, uint64_t h, uint32_t max)
{
	rig_begin(r);
	size_t at = rig_call(r, FILEOP_READDIR);
	buf_u64(&r->request, h);
	buf_u32(&r->request, max);
	return rig_one(r, at);
}

static inline int op_xattr(struct rig *r, enum fileop_code code, uint64_t h, const char *path,
	const char *name, const char *value)
{
	rig_begin(r);
	size_t at = rig_call(r, code);
	rig_target(r, h, path);
	if (code != FILEOP_LISTXATTR)
		rig_str(r, name);
	if (code == FILEOP_SETXATTR) {
		rig_str(r, value);
		buf_u32(&r->request, 0);
	}
	return rig_one(r, at);
}

/* --- the same files from beside, as the sandbox's own programs see them --- */

static inline void put_file(struct rig *r, const char *name, const char *text)
{
	AUTO_FD int fd = open(rig_path(r, name), O_WRONLY | O_CREAT | O_TRUNC, 0644);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

static inline void assert_file(struct rig *r, const char *name, const char *text)
{
	AUTO_FD int fd = open(rig_path(r, name), O_RDONLY);
	char got[4096];
	assert_true(fd >= 0);
	ssize_t n = read(fd, got, sizeof(got) - 1);
	assert_true(n >= 0);
	got[n] = 0;
	assert_string_equal(got, text);
}

static inline struct stat stat_of(struct rig *r, const char *name)
{
	struct stat st;
	assert_int_equal(lstat(rig_path(r, name), &st), 0);
	return st;
}

static inline bool is_there(struct rig *r, const char *name)
{
	struct stat st;
	return lstat(rig_path(r, name), &st) == 0;
}

static inline size_t count_names(struct rig *r)
{
	DIR *d = opendir(r->dir);
	size_t n = 0;
	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n - 2;
}

enum {
	RW = FILEOP_O_READ | FILEOP_O_WRITE,
	NEW = FILEOP_O_READ | FILEOP_O_WRITE | FILEOP_O_CREATE,
	STAGE_NEW = FILEOP_O_READ | FILEOP_O_WRITE | FILEOP_O_CREATE | FILEOP_O_STAGE,
	STAGE_OVER = FILEOP_O_READ | FILEOP_O_WRITE | FILEOP_O_CREATE | FILEOP_O_TRUNC | FILEOP_O_STAGE
};

#endif
