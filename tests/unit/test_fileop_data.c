/* links: contrib/common/buf.c contrib/common/fileop.c contrib/common/fileop_calls.c contrib/common/fileop_dir.c contrib/common/fileop_handles.c contrib/common/fileop_io.c contrib/common/fileop_open.c contrib/common/fileop_path.c contrib/common/fileop_replay.c contrib/common/fileop_server.c contrib/common/fileop_stage.c contrib/common/fileop_xattr.c */
/* The bytes of files in the file protocol: opening, reading, writing, copying, holes, and what there is no room for. */
#include "fileop_rig.h"

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
		T(test_what_may_be_opened),
		T(test_another_file_under_the_name_is_stale),
		T(test_reading_and_writing),
		T(test_large_reads_and_writes),
		T(test_a_reply_is_bounded_and_no_read_is_cut),
		T(test_an_unlinked_file_lives_on_in_its_handle),
		T(test_copying_ranges),
		T(test_holes),
		cmocka_unit_test(test_min_free_stops_what_takes_room),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
