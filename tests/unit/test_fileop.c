/* links: contrib/common/buf.c contrib/common/fileop.c contrib/common/fileop_calls.c contrib/common/fileop_dir.c contrib/common/fileop_handles.c contrib/common/fileop_io.c contrib/common/fileop_open.c contrib/common/fileop_path.c contrib/common/fileop_replay.c contrib/common/fileop_server.c contrib/common/fileop_stage.c contrib/common/fileop_xattr.c */
/* The calls of the file protocol one by one, good and bad, on a private directory. */
#include "fileop_rig.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <sys/xattr.h>

static void test_ping_and_the_head_of_a_reply(void **state)
{
	struct rig *r = *state;
	rig_begin(r);
	assert_int_equal(rig_one(r, rig_call(r, FILEOP_PING)), 0);
	assert_int_equal(r->body.left, 0);
	assert_int_equal(r->head.workspace_ino, stat_of(r, "").st_ino);
	assert_true(r->head.avail > 0);
	uint8_t boot[FILEOP_ID_SIZE];
	memcpy(boot, r->head.boot, sizeof(boot));
	rig_begin(r);
	assert_int_equal(rig_one(r, rig_call(r, FILEOP_PING)), 0);
	assert_memory_equal(r->head.boot, boot, sizeof(boot));
}

static void test_unknown_calls_and_trailing_bytes_are_refused(void **state)
{
	struct rig *r = *state;
	rig_begin(r);
	assert_int_equal(rig_one(r, rig_call(r, FILEOP_CODE_COUNT)), -ENOSYS);
	rig_begin(r);
	assert_int_equal(rig_one(r, rig_call(r, 0)), -ENOSYS);
	rig_begin(r);
	size_t at = rig_call(r, FILEOP_MKDIR);
	rig_str(r, rig_path(r, "d"));
	buf_u32(&r->request, 0755);
	buf_u8(&r->request, 1);
	assert_int_equal(rig_one(r, at), -EBADMSG);
	assert_false(is_there(r, "d"));
}

static void test_attributes_are_those_of_the_file(void **state)
{
	struct rig *r = *state;
	struct fileop_attr a;
	put_file(r, "f", "hello");
	struct stat st = stat_of(r, "f");
	assert_int_equal(op_getattr(r, 0, "f", &a), 0);
	assert_int_equal(a.dev, st.st_dev);
	assert_int_equal(a.ino, st.st_ino);
	assert_int_equal(a.size, 5);
	assert_int_equal(a.mode, st.st_mode);
	assert_int_equal(a.nlink, 1);
	assert_int_equal(a.uid, st.st_uid);
	assert_int_equal(a.gid, st.st_gid);
	assert_int_equal(a.mtime.tv_sec, st.st_mtim.tv_sec);
	assert_int_equal(a.mtime.tv_nsec, st.st_mtim.tv_nsec);
	assert_int_equal(a.flags, 0);
	assert_true(a.btime.tv_sec > 0);
	assert_int_equal(op_getattr(r, 0, "none", &a), -ENOENT);
	assert_int_equal(op_getattr(r, 0, "f/x", &a), -ENOTDIR);
	assert_int_equal(op_getattr(r, 99, NULL, &a), -EBADF);
	assert_int_equal(op_getattr(r, 0, "/", &a), 0);
	assert_int_equal(op_getattr(r, 0, "//tmp///", &a), 0);
}

static void test_a_symlink_is_shown_and_never_followed(void **state)
{
	struct rig *r = *state;
	struct fileop_attr a;
	size_t n;
	put_file(r, "f", "hello");
	assert_int_equal(op_symlink(r, "l", "/etc/../x y\xff"), 0);
	rig_attr(r, &a);
	assert_true(S_ISLNK(a.mode));
	assert_int_equal(op_getattr(r, 0, "l", &a), 0);
	const char *p = reader_bytes(&r->body, &n);
	assert_int_equal(n, 12);
	assert_memory_equal(p, "/etc/../x y\xff", 12);
	assert_int_equal(unlink(rig_path(r, "l")), 0);
	assert_int_equal(op_symlink(r, "l", "f"), 0);
	assert_int_equal(op_symlink(r, "l", "f"), -EEXIST);
	assert_int_equal(op_symlink(r, "m", ""), -ENOENT);
	assert_int_equal(op_open(r, 1, "l", FILEOP_O_READ, 0, &a), -ELOOP);
	assert_int_equal(op_open(r, 1, "l", NEW | FILEOP_O_TRUNC, 0644, &a), -ELOOP);
	assert_int_equal(op_open(r, 1, "l", STAGE_OVER, 0644, &a), -ELOOP);
	assert_int_equal(op_read(r, 0, "l", 0, 10, NULL), -ELOOP);
	struct fileop_setattr s = {.valid = FILEOP_SET_MODE, .mode = 0777};
	assert_int_equal(op_setattr(r, 0, "l", &s, &a), -EOPNOTSUPP);
	s = (struct fileop_setattr){.valid = FILEOP_SET_SIZE};
	assert_int_equal(op_setattr(r, 0, "l", &s, &a), -EINVAL);
	s = (struct fileop_setattr){.valid = FILEOP_SET_MTIME, .mtime = {100, 5}};
	assert_int_equal(op_setattr(r, 0, "l", &s, &a), 0);
	assert_int_equal(a.mtime.tv_sec, 100);
	assert_int_equal(a.mtime.tv_nsec, 5);
	assert_int_equal(stat_of(r, "f").st_size, 5);
	assert_true(stat_of(r, "f").st_mtim.tv_sec > 100);
}

static void test_paths_that_are_none(void **state)
{
	struct rig *r = *state;
	static const char nul[] = "/tmp/a\0b";
	static const struct {
		const char *p;
		size_t n;
	} bad[] = {{"", 0}, {"relative", 8}, {nul, sizeof(nul) - 1}};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		rig_begin(r);
		size_t at = rig_call(r, FILEOP_UNLINK);
		buf_bytes(&r->request, bad[i].p, bad[i].n);
		assert_int_equal(rig_one(r, at), -EINVAL);
		rig_begin(r);
		at = rig_call(r, FILEOP_GETATTR);
		buf_u64(&r->request, 0);
		buf_bytes(&r->request, bad[i].p, bad[i].n);
		buf_u64(&r->request, 0);
		buf_u64(&r->request, 0);
		assert_int_equal(rig_one(r, at), -EINVAL);
	}
	char name[300];
	memset(name, 'n', 256);
	name[256] = 0;
	assert_int_equal(op_make(r, FILEOP_MKDIR, name, 0755), -ENAMETOOLONG);
	assert_int_equal(op_open(r, 1, name, STAGE_NEW, 0644, NULL), -ENAMETOOLONG);
	name[255] = 0;
	assert_int_equal(op_make(r, FILEOP_MKDIR, name, 0755), 0);
}

static void test_paths_of_any_length(void **state)
{
	struct rig *r = *state;
	enum { DEPTH = 60, NAME = 200 };
	AUTO_FREE char *path = calloc(1, DEPTH * (NAME + 1) + 64);
	struct fileop_attr a;
	size_t n = (size_t)sprintf(path, "%s", r->dir);
	for (int i = 0; i < DEPTH; i++) {
		path[n++] = '/';
		memset(path + n, 'a' + i % 26, NAME);
		n += NAME;
		assert_int_equal(op_make(r, FILEOP_MKDIR, path, 0755), 0);
	}
	size_t deep = n;
	strcpy(path + n, "/file");
	assert_int_equal(op_open(r, 1, path, STAGE_NEW, 0644, &a), 3);
	assert_int_equal(op_write(r, 1, 0, "deep", 4), 0);
	assert_int_equal(op_commit(r, 1, &a), 0);
	assert_int_equal(op_close(r, 1), 0);
	assert_int_equal(op_open(r, 1, path, STAGE_OVER, 0644, &a), 2);
	assert_int_equal(op_write(r, 1, 0, "over", 4), 0);
	assert_int_equal(op_commit(r, 1, &a), 0);
	assert_int_equal(op_close(r, 1), 0);
	const char *p;
	assert_int_equal(op_read(r, 0, path, 0, 10, &p), 4);
	assert_memory_equal(p, "over", 4);
	assert_int_equal(op_getattr(r, 0, path, &a), 0);
	assert_int_equal(a.size, 4);
	assert_int_equal(op_rename(r, path, "up", 0), 0);
	assert_int_equal(op_link(r, 0, "up", path), 0);
	assert_int_equal(op_path(r, FILEOP_UNLINK, path), 0);
	path[deep] = 0;
	for (int i = 0; i < DEPTH; i++) {
		assert_int_equal(op_path(r, FILEOP_RMDIR, path), 0);
		*strrchr(path, '/') = 0;
	}
	/* A component beyond all limits in a path beyond PATH_MAX. */
	memset(path, 'x', 6000);
	path[0] = '/';
	path[6000] = 0;
	assert_int_equal(op_path(r, FILEOP_UNLINK, path), -ENAMETOOLONG);
}

static void test_names_of_any_bytes(void **state)
{
	struct rig *r = *state;
	static const char *const names[] = {
		"\xff\xfe", "new\nline", "'q\"", "-rf", " ", "\x01", "*", "a\\b"};
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		assert_int_equal(op_open(r, i + 1, names[i], STAGE_NEW, 0600, NULL), 3);
		assert_int_equal(op_write(r, i + 1, 0, names[i], strlen(names[i])), 0);
		assert_int_equal(op_commit(r, i + 1, NULL), 0);
		assert_file(r, names[i], names[i]);
	}
	assert_int_equal(op_open(r, 100, "", FILEOP_O_DIRECTORY, 0, NULL), 0);
	assert_int_equal(op_readdir(r, 100, 1 << 20), 0);
	assert_int_equal(reader_u8(&r->body), 1);
	assert_int_equal(reader_u32(&r->body), sizeof(names) / sizeof(names[0]));
}

static void test_what_may_be_opened(void **state)
{
	struct rig *r = *state;
	struct fileop_attr a;
	put_file(r, "f", "0123456789");
	assert_int_equal(mkdir(rig_path(r, "d"), 0755), 0);
	assert_int_equal(mkfifo(rig_path(r, "p"), 0644), 0);
	assert_int_equal(op_open(r, 0, "f", RW, 0, &a), -EINVAL);
	assert_int_equal(op_open(r, 1, "d", FILEOP_O_READ, 0, &a), -EISDIR);
	assert_int_equal(op_open(r, 1, "d", RW, 0, &a), -EISDIR);
	assert_int_equal(op_open(r, 1, "d", RW | FILEOP_O_DIRECTORY, 0, &a), -EISDIR);
	assert_int_equal(op_open(r, 1, "d", NEW | FILEOP_O_DIRECTORY, 0, &a), -EINVAL);
	assert_int_equal(op_open(r, 1, "f", FILEOP_O_DIRECTORY, 0, &a), -ENOTDIR);
	assert_int_equal(op_open(r, 1, "p", FILEOP_O_READ, 0, &a), -ENXIO);
	assert_int_equal(op_open(r, 1, "p", RW, 0, &a), -ENXIO);
	assert_int_equal(op_open(r, 1, "/dev/null", RW, 0, &a), -ENXIO);
	assert_int_equal(op_read(r, 0, "/dev/zero", 0, 10, NULL), -ENXIO);
	assert_int_equal(op_open(r, 1, "none", RW, 0, &a), -ENOENT);
	assert_int_equal(op_open(r, 1, "none/x", NEW, 0644, &a), -ENOENT);
	assert_int_equal(op_open(r, 1, "f", RW, 0, &a), 0);
	assert_int_equal(op_open(r, 1, "f", RW, 0, &a), -EEXIST);
	assert_int_equal(op_open(r, 2, "f", NEW | FILEOP_O_EXCL, 0644, &a), -EEXIST);
	assert_int_equal(op_open(r, 2, "g", NEW | FILEOP_O_EXCL | FILEOP_O_STAGE, 0640, &a), 1);
	assert_int_equal(stat_of(r, "g").st_mode, S_IFREG | 0640);
	assert_int_equal(op_open(r, 3, "f", NEW, 0644, &a), 0);
	assert_int_equal(op_open(r, 4, "f", RW | FILEOP_O_TRUNC, 0, &a), 0);
	assert_int_equal(a.size, 0);
	assert_int_equal(stat_of(r, "f").st_size, 0);
	assert_int_equal(op_close(r, 1), 0);
	assert_int_equal(op_close(r, 1), -EBADF);
	assert_int_equal(op_open(r, 1, "f", RW, 0, &a), 0);
}

static int open_same(struct rig *r, uint64_t h, const char *path, uint64_t dev, uint64_t ino)
{
	rig_begin(r);
	size_t at = rig_call(r, FILEOP_OPEN);
	buf_u64(&r->request, h);
	rig_str(r, rig_path(r, path));
	buf_u64(&r->request, dev);
	buf_u64(&r->request, ino);
	buf_u32(&r->request, NEW | FILEOP_O_TRUNC);
	buf_u32(&r->request, 0644);
	return rig_one(r, at);
}

static void test_another_file_under_the_name_is_stale(void **state)
{
	struct rig *r = *state;
	struct fileop_attr a;
	put_file(r, "f", "old");
	put_file(r, "g", "precious");
	assert_int_equal(op_getattr(r, 0, "f", &a), 0);
	assert_int_equal(rename(rig_path(r, "g"), rig_path(r, "f")), 0);
	assert_int_equal(open_same(r, 1, "f", a.dev, a.ino), -ESTALE);
	assert_int_equal(open_same(r, 1, "none", a.dev, a.ino), -ENOENT);
	assert_file(r, "f", "precious");
	struct fileop_target t = {0, rig_path(r, "f"), a.dev, a.ino};
	struct fileop_setattr s = {.valid = FILEOP_SET_SIZE};
	rig_begin(r);
	size_t at = rig_call(r, FILEOP_SETATTR);
	fileop_put_target(&r->request, &t);
	fileop_put_setattr(&r->request, &s);
	assert_int_equal(rig_one(r, at), -ESTALE);
	rig_begin(r);
	at = rig_call(r, FILEOP_READ);
	fileop_put_target(&r->request, &t);
	buf_u64(&r->request, 0);
	buf_u32(&r->request, 10);
	assert_int_equal(rig_one(r, at), -ESTALE);
	rig_begin(r);
	at = rig_call(r, FILEOP_GETATTR);
	fileop_put_target(&r->request, &t);
	assert_int_equal(rig_one(r, at), -ESTALE);
	assert_file(r, "f", "precious");
	struct stat st = stat_of(r, "f");
	assert_int_equal(open_same(r, 1, "f", st.st_dev, st.st_ino), 0);
}

static void test_reading_and_writing(void **state)
{
	struct rig *r = *state;
	struct fileop_attr a;
	const char *p;
	assert_int_equal(op_open(r, 1, "f", NEW, 0644, &a), 1);
	assert_int_equal(a.mode, S_IFREG | 0644);
	assert_int_equal(op_write(r, 1, 0, "hello", 5), 0);
	assert_int_equal(op_write(r, 1, 10, "world", 5), 0);
	assert_int_equal(op_read(r, 1, NULL, 0, 100, &p), 15);
	assert_memory_equal(p, "hello\0\0\0\0\0world", 15);
	assert_int_equal(op_read(r, 1, NULL, 12, 2, &p), 2);
	assert_memory_equal(p, "rl", 2);
	assert_int_equal(op_read(r, 1, NULL, 15, 2, &p), 0);
	assert_int_equal(op_read(r, 1, NULL, 1000, 2, &p), 0);
	assert_int_equal(op_read(r, 0, "f", 10, 100, &p), 5);
	assert_int_equal(op_read(r, 1, NULL, UINT64_MAX, 2, &p), -EINVAL);
	assert_int_equal(op_read(r, 1, NULL, 0, FILEOP_MAX_READ + 1, &p), -EINVAL);
	assert_int_equal(op_write(r, 1, UINT64_MAX - 2, "x", 1), -EFBIG);
	assert_int_equal(op_write(r, 9, 0, "x", 1), -EBADF);
	assert_int_equal(op_open(r, 2, "f", FILEOP_O_READ, 0, &a), 0);
	assert_int_equal(op_write(r, 2, 0, "x", 1), -EBADF);
	assert_int_equal(op_open(r, 3, "f", FILEOP_O_WRITE, 0, &a), 0);
	assert_int_equal(op_read(r, 3, NULL, 0, 1, &p), -EBADF);
	assert_int_equal(op_open(r, 4, "f", FILEOP_O_WRITE | FILEOP_O_APPEND, 0, &a), 0);
	assert_int_equal(op_write(r, 4, 0, "!", 1), 0);
	assert_int_equal(op_write(r, 1, 15, "X", 1), 0);
	assert_int_equal(op_write(r, 4, 3, "?", 1), 0);
	assert_int_equal(op_read(r, 1, NULL, 10, 100, &p), 7);
	assert_memory_equal(p, "worldX?", 7);
	assert_int_equal(op_handle(r, FILEOP_FSYNC, 1), 0);
	assert_int_equal(op_handle(r, FILEOP_FSYNC, 77), -EBADF);
	assert_int_equal(op_commit(r, 1, &a), 0);
	assert_int_equal(a.size, 17);
}

static void test_large_reads_and_writes(void **state)
{
	struct rig *r = *state;
	AUTO_FREE char *data = malloc(FILEOP_MAX_READ);
	const char *p;
	for (size_t i = 0; i < FILEOP_MAX_READ; i++)
		data[i] = (char)(i * 2654435761u >> 13);
	assert_int_equal(op_open(r, 1, "f", STAGE_NEW, 0644, NULL), 3);
	assert_int_equal(op_write(r, 1, 0, data, FILEOP_MAX_READ), 0);
	assert_int_equal(op_write(r, 1, FILEOP_MAX_READ, data, FILEOP_MAX_READ), 0);
	assert_int_equal(op_commit(r, 1, NULL), 0);
	assert_int_equal(op_read(r, 0, "f", 1000, FILEOP_MAX_READ, &p), FILEOP_MAX_READ);
	assert_memory_equal(p, data + 1000, FILEOP_MAX_READ - 1000);
	assert_memory_equal(p + FILEOP_MAX_READ - 1000, data, 1000);
}

static void test_a_reply_is_bounded_and_no_read_is_cut(void **state)
{
	struct rig *r = *state;
	enum { CALLS = 6 };
	int fd = open(rig_path(r, "f"), O_RDWR | O_CREAT, 0644);
	assert_int_equal(ftruncate(fd, 64 << 20), 0);
	close(fd);
	rig_begin(r);
	for (int i = 0; i < CALLS; i++) {
		size_t at = rig_call(r, FILEOP_READ);
		rig_target(r, 0, "f");
		buf_u64(&r->request, 0);
		buf_u32(&r->request, FILEOP_MAX_READ);
		fileop_end_call(&r->request, at);
	}
	struct reader in = rig_send(r, CALLS), body;
	assert_true(r->reply.size <= FILEOP_MAX_BATCH);
	size_t n;
	for (int i = 0; i < CALLS; i++) {
		int err = fileop_get_result(&in, &body);
		assert_int_equal(err, i < 3 ? 0 : -EMSGSIZE);
		if (!err) {
			reader_bytes(&body, &n);
			assert_int_equal(n, FILEOP_MAX_READ);
		}
	}
}

static void test_setattr(void **state)
{
	struct rig *r = *state;
	struct fileop_attr a;
	put_file(r, "f", "0123456789");
	struct fileop_setattr s = {
		.valid = FILEOP_SET_SIZE | FILEOP_SET_MODE | FILEOP_SET_UID | FILEOP_SET_GID |
				 FILEOP_SET_ATIME | FILEOP_SET_MTIME,
		.mode = 0600,
		.uid = getuid(),
		.gid = getgid(),
		.size = 4,
		.atime = {1000, 1},
		.mtime = {2000, 999999999},
	};
	for (int by_handle = 0; by_handle < 2; by_handle++) {
		if (by_handle)
			assert_int_equal(op_open(r, 1, "f", RW, 0, NULL), 0);
		s.size += 2;
		s.mode++;
		s.mtime.tv_sec--;
		assert_int_equal(op_setattr(r, (uint64_t)by_handle, "f", &s, &a), 0);
		struct stat st = stat_of(r, "f");
		assert_int_equal(st.st_size, s.size);
		assert_int_equal(st.st_mode, S_IFREG | s.mode);
		assert_int_equal(st.st_atim.tv_sec, 1000);
		assert_int_equal(st.st_mtim.tv_sec, s.mtime.tv_sec);
		assert_int_equal(st.st_mtim.tv_nsec, 999999999);
		assert_int_equal(a.mtime.tv_sec, s.mtime.tv_sec);
		assert_int_equal(a.size, s.size);
	}
	s = (struct fileop_setattr){.valid = FILEOP_SET_MTIME_NOW};
	assert_int_equal(op_setattr(r, 0, "f", &s, &a), 0);
	assert_true(a.mtime.tv_sec > 1000000);
	assert_int_equal(a.atime.tv_sec, 1000);
	s = (struct fileop_setattr){.valid = FILEOP_SET_SIZE, .size = 5};
	assert_int_equal(op_setattr(r, 0, "", &s, &a), -EISDIR);
	s.size = UINT64_MAX;
	assert_int_equal(op_setattr(r, 0, "f", &s, &a), -EINVAL);
	assert_int_equal(op_setattr(r, 0, "none", &s, &a), -ENOENT);
	assert_int_equal(mkdir(rig_path(r, "d"), 0755), 0);
	s = (struct fileop_setattr){.valid = FILEOP_SET_MODE | FILEOP_SET_MTIME, .mode = 01700};
	s.mtime.tv_sec = -5; /* before 1970 */
	assert_int_equal(op_setattr(r, 0, "d", &s, &a), 0);
	assert_int_equal(a.mode, S_IFDIR | 01700);
	assert_int_equal(a.mtime.tv_sec, -5);
	if (getuid() != 0) {
		s = (struct fileop_setattr){.valid = FILEOP_SET_UID, .uid = 0};
		assert_int_equal(op_setattr(r, 0, "f", &s, &a), -EPERM);
	}
}

static void test_setattr_without_proc(void **state)
{
	struct rig *r = *state;
	struct fileop_attr a;
	r->s->has_proc = false;
	put_file(r, "f", "0123456789");
	struct fileop_setattr s = {.valid = FILEOP_SET_SIZE | FILEOP_SET_MODE | FILEOP_SET_MTIME,
		.mode = 0600,
		.size = 4,
		.mtime = {2000, 3}};
	assert_int_equal(op_setattr(r, 0, "f", &s, &a), 0);
	assert_int_equal(a.size, 4);
	assert_int_equal(a.mode, S_IFREG | 0600);
	assert_int_equal(a.mtime.tv_sec, 2000);
	assert_int_equal(op_link(r, 0, "f", "g"), 0);
	assert_int_equal(op_xattr(r, FILEOP_GETXATTR, 0, "f", "user.x", NULL), -EOPNOTSUPP);
}

static void test_making_and_removing_names(void **state)
{
	struct rig *r = *state;
	struct fileop_attr a;
	assert_int_equal(op_make(r, FILEOP_MKDIR, "d", 01777), 0);
	rig_attr(r, &a);
	assert_int_equal(a.mode, S_IFDIR | 01777);
	assert_int_equal(op_make(r, FILEOP_MKDIR, "d/", 0755), -EEXIST);
	assert_int_equal(op_make(r, FILEOP_MKDIR, "x/y", 0755), -ENOENT);
	assert_int_equal(op_make(r, FILEOP_MKNOD, "d/p", S_IFIFO | 0640), 0);
	rig_attr(r, &a);
	assert_int_equal(a.mode, S_IFIFO | 0640);
	assert_int_equal(op_make(r, FILEOP_MKNOD, "s", S_IFSOCK | 0600), 0);
	assert_int_equal(op_make(r, FILEOP_MKNOD, "r", S_IFREG | 0600), 0);
	assert_int_equal(op_make(r, FILEOP_MKNOD, "c", S_IFCHR | 0600), -EPERM);
	assert_int_equal(op_make(r, FILEOP_MKNOD, "b", S_IFBLK | 0600), -EPERM);
	assert_int_equal(op_make(r, FILEOP_MKNOD, "r", S_IFREG | 0600), -EEXIST);
	assert_int_equal(op_path(r, FILEOP_RMDIR, "d"), -ENOTEMPTY);
	assert_int_equal(op_path(r, FILEOP_RMDIR, "r"), -ENOTDIR);
	assert_int_equal(op_path(r, FILEOP_UNLINK, "d"), -EISDIR);
	assert_int_equal(op_path(r, FILEOP_UNLINK, "d/p"), 0);
	assert_int_equal(op_path(r, FILEOP_UNLINK, "d/p"), -ENOENT);
	assert_int_equal(op_path(r, FILEOP_RMDIR, "d"), 0);
	assert_int_equal(op_path(r, FILEOP_UNLINK, "s"), 0);
	assert_int_equal(op_path(r, FILEOP_UNLINK, "r"), 0);
	assert_int_equal(count_names(r), 0);
}

static void test_renames_and_links(void **state)
{
	struct rig *r = *state;
	struct fileop_attr a;
	put_file(r, "a", "A");
	put_file(r, "b", "B");
	assert_int_equal(op_rename(r, "a", "b", RENAME_NOREPLACE), -EEXIST);
	assert_int_equal(op_rename(r, "a", "b", RENAME_EXCHANGE), 0);
	assert_file(r, "a", "B");
	assert_int_equal(op_rename(r, "a", "b", RENAME_WHITEOUT), -EINVAL);
	assert_int_equal(op_rename(r, "a", "b", 0), 0);
	assert_file(r, "b", "B");
	assert_int_equal(op_rename(r, "a", "b", 0), -ENOENT);
	assert_int_equal(op_link(r, 0, "b", "c"), 0);
	rig_attr(r, &a);
	assert_int_equal(a.nlink, 2);
	assert_int_equal(op_link(r, 0, "b", "c"), -EEXIST);
	assert_int_equal(op_open(r, 1, "b", RW, 0, NULL), 0);
	assert_int_equal(op_link(r, 1, NULL, "e"), 0);
	assert_int_equal(stat_of(r, "e").st_nlink, 3);
	assert_int_equal(op_symlink(r, "l", "nowhere"), 0);
	assert_int_equal(op_link(r, 0, "l", "l2"), 0);
	assert_true(S_ISLNK(stat_of(r, "l2").st_mode));
	/* With the file asked for by number, the symlink itself is linked too. */
	struct stat st = stat_of(r, "l");
	struct fileop_target t = {0, rig_path(r, "l"), st.st_dev, st.st_ino};
	rig_begin(r);
	size_t at = rig_call(r, FILEOP_LINK);
	fileop_put_target(&r->request, &t);
	rig_str(r, rig_path(r, "l3"));
	assert_int_equal(rig_one(r, at), 0);
	assert_int_equal(stat_of(r, "l3").st_ino, st.st_ino);
}

static void test_an_unlinked_file_lives_on_in_its_handle(void **state)
{
	struct rig *r = *state;
	struct fileop_attr a;
	const char *p;
	put_file(r, "f", "still");
	assert_int_equal(op_open(r, 1, "f", RW, 0, NULL), 0);
	assert_int_equal(op_path(r, FILEOP_UNLINK, "f"), 0);
	assert_int_equal(op_write(r, 1, 5, " here", 5), 0);
	assert_int_equal(op_read(r, 1, NULL, 0, 100, &p), 10);
	assert_int_equal(op_getattr(r, 1, NULL, &a), 0);
	assert_int_equal(a.nlink, 0);
	assert_int_equal(op_salvage(r, 1, "f.conflict", &a), 0);
	assert_int_equal(a.size, 10);
	assert_file(r, "f.conflict", "still here");
	assert_int_equal(stat_of(r, "f.conflict").st_mode, S_IFREG | 0644);
	assert_int_equal(op_salvage(r, 1, "f.conflict", &a), -EEXIST);
	assert_file(r, "f.conflict", "still here");
	assert_int_equal(op_close(r, 1), 0);
	assert_int_equal(count_names(r), 1);
}

/* Reads the listing of handle h to its end, max bytes at a time; how many names; *calls is how many calls. */
static size_t list_all(struct rig *r, uint64_t h, uint32_t max, size_t *calls)
{
	size_t total = 0;
	for (*calls = 0;; (*calls)++) {
		assert_int_equal(op_readdir(r, h, max), 0);
		bool eof = reader_u8(&r->body);
		uint32_t count = reader_u32(&r->body);
		for (uint32_t i = 0; i < count; i++) {
			size_t n;
			assert_non_null(reader_bytes(&r->body, &n));
			rig_attr(r, NULL);
			assert_non_null(reader_bytes(&r->body, &n));
		}
		assert_int_equal(r->body.left, 0);
		total += count;
		if (eof)
			return total;
		assert_true(count > 0);
	}
}

static void test_listings(void **state)
{
	struct rig *r = *state;
	enum { FILES = 3000 };
	size_t calls;
	for (int i = 0; i < FILES; i++) {
		char name[40];
		snprintf(name, sizeof(name), "file-number-%d", i);
		put_file(r, name, "");
	}
	assert_int_equal(op_open(r, 1, "", FILEOP_O_DIRECTORY, 0, NULL), 0);
	assert_int_equal(list_all(r, 1, FILEOP_MAX_READ, &calls), FILES);
	assert_int_equal(calls, 0);
	assert_int_equal(list_all(r, 1, 1000, &calls), 0);
	assert_int_equal(op_handle(r, FILEOP_REWINDDIR, 1), 0);
	assert_int_equal(list_all(r, 1, 1000, &calls), FILES);
	assert_true(calls > 300);
	assert_int_equal(op_handle(r, FILEOP_REWINDDIR, 1), 0);
	assert_int_equal(list_all(r, 1, 0, &calls), FILES);
	put_file(r, "f", "");
	assert_int_equal(op_open(r, 2, "f", RW, 0, NULL), 0);
	assert_int_equal(op_readdir(r, 2, 1000), -ENOTDIR);
	assert_int_equal(op_handle(r, FILEOP_REWINDDIR, 2), -ENOTDIR);
	assert_int_equal(op_readdir(r, 1, FILEOP_MAX_READ + 1), -EINVAL);
	assert_int_equal(op_readdir(r, 3, 1000), -EBADF);
}

static void test_a_listing_has_links_and_attributes(void **state)
{
	struct rig *r = *state;
	size_t n;
	struct fileop_attr a;
	assert_int_equal(symlink("../else where", rig_path(r, "l")), 0);
	assert_int_equal(op_open(r, 1, "", FILEOP_O_DIRECTORY, 0, NULL), 0);
	assert_int_equal(op_readdir(r, 1, 10000), 0);
	assert_int_equal(reader_u8(&r->body), 1);
	assert_int_equal(reader_u32(&r->body), 1);
	assert_memory_equal(reader_bytes(&r->body, &n), "l", 1);
	rig_attr(r, &a);
	assert_int_equal(a.ino, stat_of(r, "l").st_ino);
	const char *p = reader_bytes(&r->body, &n);
	assert_int_equal(n, 13);
	assert_memory_equal(p, "../else where", 13);
}

static void test_procfs_is_special(void **state)
{
	struct rig *r = *state;
	struct fileop_attr a;
	const char *p;
	assert_int_equal(op_getattr(r, 0, "/proc/uptime", &a), 0);
	assert_int_equal(a.flags, FILEOP_ATTR_SPECIAL);
	assert_int_equal(a.size, 0);
	assert_true(op_read(r, 0, "/proc/uptime", 0, 4096, &p) > 4);
	assert_true(op_read(r, 0, "/proc/uptime", 2, 1, &p) == 1);
	assert_int_equal(op_open(r, 1, "/proc", FILEOP_O_DIRECTORY, 0, &a), 0);
	assert_int_equal(op_readdir(r, 1, 10000), 0);
	assert_int_equal(reader_u8(&r->body), 1);
	assert_int_equal(reader_u32(&r->body), 0);
	assert_int_equal(op_open(r, 2, "/proc/self/stat", FILEOP_O_READ, 0, &a), 0);
	assert_true(op_read(r, 2, NULL, 0, FILEOP_MAX_READ, &p) > 10);
	/* Copied as it reads, not as its size says. */
	assert_int_equal(op_open(r, 3, "copy", NEW, 0600, &a), 1);
	rig_begin(r);
	size_t at = rig_call(r, FILEOP_COPY_RANGE);
	buf_u64(&r->request, 2);
	buf_u64(&r->request, 0);
	buf_u64(&r->request, 3);
	buf_u64(&r->request, 0);
	buf_u64(&r->request, 1 << 20);
	assert_int_equal(rig_one(r, at), 0);
	assert_true(reader_u64(&r->body) > 10);
}

static int copy_range(struct rig *r, uint64_t in, uint64_t in_off, uint64_t out, uint64_t out_off,
	uint64_t n, uint64_t *did)
{
	rig_begin(r);
	size_t at = rig_call(r, FILEOP_COPY_RANGE);
	buf_u64(&r->request, in);
	buf_u64(&r->request, in_off);
	buf_u64(&r->request, out);
	buf_u64(&r->request, out_off);
	buf_u64(&r->request, n);
	int err = rig_one(r, at);
	*did = err ? 0 : reader_u64(&r->body);
	return err;
}

static void test_copying_ranges(void **state)
{
	struct rig *r = *state;
	uint64_t did;
	put_file(r, "a", "0123456789");
	put_file(r, "b", "abcdefghij");
	assert_int_equal(op_open(r, 1, "a", RW, 0, NULL), 0);
	assert_int_equal(op_open(r, 2, "b", RW, 0, NULL), 0);
	assert_int_equal(op_open(r, 3, "b", RW | FILEOP_O_APPEND, 0, NULL), 0);
	assert_int_equal(copy_range(r, 1, 2, 2, 4, 3, &did), 0);
	assert_int_equal(did, 3);
	assert_file(r, "b", "abcd234hij");
	assert_int_equal(copy_range(r, 1, 8, 2, 0, INT64_MAX, &did), 0);
	assert_int_equal(did, 2);
	assert_file(r, "b", "89cd234hij");
	assert_int_equal(copy_range(r, 1, 20, 2, 0, 5, &did), 0);
	assert_int_equal(did, 0);
	assert_int_equal(copy_range(r, 1, 0, 1, 5, 5, &did), 0);
	assert_file(r, "a", "0123401234");
	assert_int_equal(copy_range(r, 1, 0, 1, 3, 5, &did), -EINVAL);
	assert_int_equal(copy_range(r, 1, 0, 3, 0, 5, &did), -EBADF);
	assert_int_equal(copy_range(r, 1, UINT64_MAX, 2, 0, 5, &did), -EINVAL);
	assert_int_equal(copy_range(r, 1, 0, 9, 0, 5, &did), -EBADF);
}

static void test_holes(void **state)
{
	struct rig *r = *state;
	struct fileop_attr a;
	assert_int_equal(op_open(r, 1, "f", STAGE_NEW, 0644, NULL), 3);
	assert_int_equal(op_write(r, 1, 1 << 20, "data", 4), 0);
	rig_begin(r);
	size_t at = rig_call(r, FILEOP_SEEK);
	buf_u64(&r->request, 1);
	buf_u64(&r->request, 0);
	buf_u32(&r->request, SEEK_DATA);
	assert_int_equal(rig_one(r, at), 0);
	assert_int_equal(reader_u64(&r->body), 1 << 20);
	rig_begin(r);
	at = rig_call(r, FILEOP_SEEK);
	buf_u64(&r->request, 1);
	buf_u64(&r->request, 2 << 20);
	buf_u32(&r->request, SEEK_HOLE);
	assert_int_equal(rig_one(r, at), -ENXIO);
	rig_begin(r);
	at = rig_call(r, FILEOP_SEEK);
	buf_u64(&r->request, 1);
	buf_u64(&r->request, 0);
	buf_u32(&r->request, SEEK_END);
	assert_int_equal(rig_one(r, at), -EINVAL);
	rig_begin(r);
	at = rig_call(r, FILEOP_FALLOCATE);
	buf_u64(&r->request, 1);
	buf_u32(&r->request, 0);
	buf_u64(&r->request, 0);
	buf_u64(&r->request, 2 << 20);
	assert_int_equal(rig_one(r, at), 0);
	assert_int_equal(op_getattr(r, 1, NULL, &a), 0);
	assert_int_equal(a.size, 2 << 20);
	assert_true(a.blocks >= 4096);
	rig_begin(r);
	at = rig_call(r, FILEOP_FALLOCATE);
	buf_u64(&r->request, 1);
	buf_u32(&r->request, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE);
	buf_u64(&r->request, 0);
	buf_u64(&r->request, 1 << 20);
	assert_int_equal(rig_one(r, at), 0);
	rig_begin(r);
	at = rig_call(r, FILEOP_FALLOCATE);
	buf_u64(&r->request, 1);
	buf_u32(&r->request, 0);
	buf_u64(&r->request, 1);
	buf_u64(&r->request, UINT64_MAX);
	assert_int_equal(rig_one(r, at), -EINVAL);
}

static void test_statfs(void **state)
{
	struct rig *r = *state;
	assert_int_equal(op_path(r, FILEOP_STATFS, ""), 0);
	assert_true(reader_u64(&r->body) >= 512);
	assert_true(reader_u64(&r->body) >= 512);
	assert_true(reader_u64(&r->body) > 0);
	for (int i = 0; i < 4; i++)
		reader_u64(&r->body);
	assert_int_equal(reader_u64(&r->body), 255);
	assert_int_equal(r->body.left, 0);
	assert_int_equal(op_path(r, FILEOP_STATFS, "none"), -ENOENT);
}

static void test_xattrs(void **state)
{
	struct rig *r = *state;
	size_t n;
	put_file(r, "f", "x");
	if (setxattr(rig_path(r, "f"), "user.probe", "", 0, 0) < 0)
		skip(); /* the file system of /tmp has none */
	assert_int_equal(removexattr(rig_path(r, "f"), "user.probe"), 0);
	assert_int_equal(op_open(r, 1, "f", RW, 0, NULL), 0);
	assert_int_equal(op_xattr(r, FILEOP_SETXATTR, 0, "f", "user.a", "one"), 0);
	assert_int_equal(op_xattr(r, FILEOP_SETXATTR, 1, NULL, "user.b", ""), 0);
	assert_int_equal(op_xattr(r, FILEOP_GETXATTR, 1, NULL, "user.a", NULL), 0);
	assert_memory_equal(reader_bytes(&r->body, &n), "one", 3);
	assert_int_equal(op_xattr(r, FILEOP_GETXATTR, 0, "f", "user.b", NULL), 0);
	assert_int_equal(op_xattr(r, FILEOP_GETXATTR, 0, "f", "user.c", NULL), -ENODATA);
	assert_int_equal(op_xattr(r, FILEOP_GETXATTR, 0, "f", "security.capability", NULL), -ENODATA);
	assert_int_equal(op_xattr(r, FILEOP_SETXATTR, 0, "f", "trusted.x", "1"), -EOPNOTSUPP);
	assert_int_equal(op_xattr(r, FILEOP_REMOVEXATTR, 0, "f", "trusted.x", NULL), -EOPNOTSUPP);
	assert_int_equal(op_xattr(r, FILEOP_LISTXATTR, 0, "f", NULL, NULL), 0);
	reader_bytes(&r->body, &n);
	assert_int_equal(n, 14);
	assert_int_equal(op_xattr(r, FILEOP_REMOVEXATTR, 1, NULL, "user.a", NULL), 0);
	assert_int_equal(op_xattr(r, FILEOP_REMOVEXATTR, 1, NULL, "user.a", NULL), -ENODATA);
	assert_int_equal(op_symlink(r, "l", "f"), 0);
	assert_int_equal(op_xattr(r, FILEOP_GETXATTR, 0, "l", "user.b", NULL), -ENODATA);
	assert_int_equal(op_xattr(r, FILEOP_LISTXATTR, 9, NULL, NULL, NULL), -EBADF);
}

static void test_min_free_stops_what_takes_room(void **state)
{
	(void)state;
	struct rig rig, *r = &rig;
	rig_start(r, UINT64_MAX / 2);
	struct fileop_setattr s = {.valid = FILEOP_SET_SIZE, .size = 100};
	put_file(r, "f", "0123456789");
	assert_int_equal(op_open(r, 1, "f", RW, 0, NULL), 0);
	assert_int_equal(r->head.avail, 0);
	assert_int_equal(op_write(r, 1, 0, "x", 1), -ENOSPC);
	assert_int_equal(op_open(r, 2, "g", STAGE_NEW, 0644, NULL), -ENOSPC);
	assert_int_equal(op_make(r, FILEOP_MKDIR, "d", 0755), -ENOSPC);
	assert_int_equal(op_symlink(r, "l", "x"), -ENOSPC);
	assert_int_equal(op_setattr(r, 0, "f", &s, NULL), -ENOSPC);
	s.size = 5;
	assert_int_equal(op_setattr(r, 0, "f", &s, NULL), 0);
	rig_begin(r);
	size_t at = rig_call(r, FILEOP_FALLOCATE);
	buf_u64(&r->request, 1);
	buf_u32(&r->request, 0);
	buf_u64(&r->request, 0);
	buf_u64(&r->request, 4096);
	assert_int_equal(rig_one(r, at), -ENOSPC);
	uint64_t did;
	assert_int_equal(copy_range(r, 1, 0, 1, 10, 5, &did), -ENOSPC);
	assert_int_equal(op_path(r, FILEOP_STATFS, ""), 0);
	for (int i = 0; i < 3; i++)
		reader_u64(&r->body);
	assert_int_equal(reader_u64(&r->body), 0);
	assert_int_equal(reader_u64(&r->body), 0);
	assert_int_equal(fileop_server_check_space(r->s, 0), -ENOSPC);
	assert_int_equal(op_path(r, FILEOP_UNLINK, "f"), 0);
	rig_stop(r);
}

#define T(f) cmocka_unit_test_setup_teardown(f, rig_setup, rig_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_ping_and_the_head_of_a_reply),
		T(test_unknown_calls_and_trailing_bytes_are_refused),
		T(test_attributes_are_those_of_the_file),
		T(test_a_symlink_is_shown_and_never_followed),
		T(test_paths_that_are_none),
		T(test_paths_of_any_length),
		T(test_names_of_any_bytes),
		T(test_what_may_be_opened),
		T(test_another_file_under_the_name_is_stale),
		T(test_reading_and_writing),
		T(test_large_reads_and_writes),
		T(test_a_reply_is_bounded_and_no_read_is_cut),
		T(test_setattr),
		T(test_setattr_without_proc),
		T(test_making_and_removing_names),
		T(test_renames_and_links),
		T(test_an_unlinked_file_lives_on_in_its_handle),
		T(test_listings),
		T(test_a_listing_has_links_and_attributes),
		T(test_procfs_is_special),
		T(test_copying_ranges),
		T(test_holes),
		T(test_statfs),
		T(test_xattrs),
		cmocka_unit_test(test_min_free_stops_what_takes_room),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
