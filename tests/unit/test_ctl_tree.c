/* links: tests/unit/ctl_rig.c tests/unit/ctl_fakes_ops.c tests/unit/ctl_fakes_sandbox.c tests/unit/ctl_fakes_runs.c tests/unit/ctl_fakes_files.c ctl/ctl_fs.c ctl/list.c ctl/name_list.c ctl/tree.c ctl/pump.c ctl/stream.c ctl/text.c ctl/sized.c ctl/doc.c ctl/verbs.c ctl/talk.c ctl/upload.c ctl/runs.c ctl/run_files.c ctl/env.c ctl/sessions.c ctl/session_new.c ctl/session_files.c sandboxfs/session_api.c ctl/conversation.c ctl/exec.c ctl/exec_json.c ctl/log_event.c ctl/status.c sandboxfs/shown.c ctl/server.c ctl/sandbox_dir.c ctl/words.c sandboxfs/call.c sandboxfs/node.c sandboxfs/log.c contrib/common/buf.c contrib/common/spool.c */
/* The control tree as names: what is listed, found, made and allowed, in a sandbox, in its runs and for the server. */
#include "ctl_rig.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"

static bool listed(struct node *dir, const char *name)
{
	struct op *op = fake_op(0);
	struct node_open o = {0};
	struct node_filler f = {.room = 256};
	bool found = false;
	assert_int_equal(dir->ops->opendir(dir, op, &o), 0);
	assert_int_equal(dir->ops->readdir(dir, op, o.file, 0, &f), 0);
	for (unsigned i = 0; i < f.count; i++)
		found = found || strcmp(f.names[i], name) == 0;
	assert_false(f.with_attributes);
	fake_filler_clear(&f);
	dir->ops->releasedir(dir, op, o.file);
	fake_op_free(op);
	return found;
}

static void listing_and_lookup_agree(void **state)
{
	(void)state;
	struct node_entry e;
	assert_true(listed(rig.top, "exec"));
	assert_true(listed(rig.top, "."));
	assert_true(listed(rig.top, "help"));
	assert_false(listed(rig.top, "last"));
	assert_int_equal(lookup(rig.top, "last", &e), -ENOENT);
	assert_int_equal(lookup(rig.top, "nosuch", &e), -ENOENT);
	assert_int_equal(lookup(rig.top, "exec", &e), 0);
	assert_int_equal(e.attr.st_mode, S_IFREG | 0600);
	assert_int_equal(e.attr.st_uid, getuid());
	node_put(e.node);
}

static void a_listing_goes_on_where_it_stopped(void **state)
{
	(void)state;
	struct op *op = fake_op(0);
	struct node_open o = {0};
	unsigned total = 0;
	assert_int_equal(rig.top->ops->opendir(rig.top, op, &o), 0);
	for (;;) {
		struct node_filler f = {.room = 2};
		assert_int_equal(rig.top->ops->readdir(rig.top, op, o.file, total, &f), 0);
		total += f.count;
		fake_filler_clear(&f);
		if (f.room != 2 || total > 100)
			fail();
		struct node_filler probe = {.room = 2};
		assert_int_equal(rig.top->ops->readdir(rig.top, op, o.file, total, &probe), 0);
		bool end = probe.count == 0;
		fake_filler_clear(&probe);
		if (end)
			break;
	}
	unsigned rows = 0;
	for (const struct ctl_row *row = ctl_sandbox_dir.rows; row->name; row++)
		rows += !row->unlisted && strcmp(row->name, "last") != 0; /* there was no run yet */
	assert_int_equal(total, rows + 3);                            /* . .. help */
	rig.top->ops->releasedir(rig.top, op, o.file);
	fake_op_free(op);
}

static void request_files_get_a_node_for_each_lookup_directories_stay(void **state)
{
	(void)state;
	struct node_entry a, b;
	assert_int_equal(lookup(rig.top, "exec", &a), 0);
	assert_int_equal(lookup(rig.top, "exec", &b), 0);
	assert_ptr_not_equal(a.node, b.node);
	assert_int_equal(a.attr.st_ino, b.attr.st_ino);
	assert_true(a.entry_timeout == 0);
	node_put(a.node);
	node_put(b.node);
	assert_int_equal(lookup(rig.top, "runs", &a), 0);
	assert_int_equal(lookup(rig.top, "runs", &b), 0);
	assert_ptr_equal(a.node, b.node);
	node_put(a.node);
	node_put(b.node);
}

static void help_answers_in_every_directory(void **state)
{
	(void)state;
	assert_file_holds("help", "exec.json");
	assert_file_holds("help", "discard PATH|all");
	assert_file_holds("runs/help", "NAME/stdout");
	assert_file_holds("ports/help", "ports");
}

static int create(const char *name, int flags)
{
	struct op *op = fake_op(0);
	struct node_entry e;
	struct node_open o = {.flags = flags};
	int err = rig.top->ops->create(rig.top, op, name, 0644, &e, &o);
	if (!err) {
		e.node->ops->release(e.node, op, o.file);
		node_put(e.node);
	}
	fake_op_free(op);
	return err;
}

static void no_name_can_be_made_where_the_tables_have_none(void **state)
{
	(void)state;
	struct node_entry e;
	struct op *op = fake_op(0);
	assert_int_equal(create(".exec.swp", O_WRONLY), -EACCES);
	assert_int_equal(create("exec~", O_WRONLY), -EACCES);
	assert_file("error", ""); /* editors are no news */
	assert_int_equal(create("foo", O_WRONLY), -EACCES);
	assert_file_holds("error", "foo: no file can be made here");
	assert_int_equal(create("exec", O_WRONLY | O_EXCL), -EEXIST);
	assert_int_equal(create("exec", O_WRONLY), 0);
	assert_int_equal(rig.top->ops->mkdir(rig.top, op, "d", 0755, &e), -EACCES);
	assert_int_equal(rig.top->ops->mkdir(rig.top, op, "runs", 0755, &e), -EEXIST);
	assert_int_equal(rig.top->ops->unlink(rig.top, op, "exec"), -EPERM);
	assert_int_equal(rig.top->ops->rmdir(rig.top, op, "runs"), -EPERM);
	assert_int_equal(rig.top->ops->rename(rig.top, op, "a", rig.top, "b", 0), -EACCES);
	fake_op_free(op);
}

static void modes_hold_for_root_too(void **state)
{
	(void)state;
	struct opened f;
	assert_int_equal(try_open("status", O_WRONLY, 0, &f), -EACCES);
	assert_int_equal(try_open("status", O_RDWR, 0, &f), -EACCES);
	assert_file_holds("error", "status: it can only be read");
}

static void chmod_truncate_and_touch_do_nothing_and_succeed(void **state)
{
	(void)state;
	struct node *n = find("exec");
	struct stat in = {.st_uid = getuid(), .st_mode = 0777}, out;
	struct op *op = fake_op(0);
	double timeout;
	int valid = NODE_SET_MODE | NODE_SET_SIZE | NODE_SET_ATIME | NODE_SET_MTIME | NODE_SET_UID;
	assert_int_equal(n->ops->setattr(n, op, NULL, &in, valid, &out, &timeout), 0);
	assert_int_equal(out.st_mode, S_IFREG | 0600);
	in.st_uid = getuid() + 1;
	assert_int_equal(n->ops->setattr(n, op, NULL, &in, NODE_SET_UID, &out, &timeout), -EPERM);
	fake_op_free(op);
	node_put(n);
}

static void the_server_has_a_tree_of_its_own(void **state)
{
	(void)state;
	struct node *sandbox = rig.top;
	assert_int_equal(ctl_node_new(rig.world.server, NULL, &rig.top), 0);
	assert_file_holds("server", "kind local\ncan create\n");
	assert_file("stats", "requests 1\n");
	assert_int_equal(write_whole("ctl", "log debug\n"), 0);
	assert_file("ctl", "log debug\n");
	assert_int_equal(write_whole("ctl", "log loud\n"), -EINVAL);
	assert_file_holds("error", "ctl: log loud");
	assert_int_equal(write_whole("ctl", "log info\ndrop-caches\n"), 0);
	node_put(rig.top);
	rig.top = sandbox;
}

static void runs_are_directories_and_sizes_are_true(void **state)
{
	(void)state;
	struct node_entry e;
	struct opened f = open_it("exec", O_RDWR);
	assert_int_equal(write_text(&f, "x\n"), 0);
	struct run *r = fake_started(0);
	fake_run_print(r, 1, "out", 3);
	fake_run_print(r, 2, "err!", 4);
	struct node *dir = find("runs/1");
	assert_true(listed(dir, "help"));
	assert_int_equal(lookup(dir, "stdout", &e), 0);
	assert_int_equal(e.attr.st_size, 3);
	assert_true(e.attr_timeout == 0);
	node_put(e.node);
	assert_int_equal(lookup(dir, "logs", &e), 0);
	assert_int_equal(e.attr.st_size, 7);
	node_put(e.node);
	node_put(dir);
	struct node *runs = find("runs");
	assert_true(listed(runs, "1"));
	assert_int_equal(lookup(runs, "01", &e), -ENOENT);
	assert_int_equal(lookup(runs, "2", &e), -ENOENT);
	assert_int_equal(lookup(runs, "x", &e), -ENOENT);
	node_put(runs);
	assert_file("runs/1/exit", "");
	assert_file("runs/1/duration", "");
	assert_file("runs/1/logs", "outerr!");
	fake_run_end(r, 7, false);
	assert_read(&f, "outerr!");
	assert_read(&f, "");
	assert_file("runs/1/exit", "7\n");
	assert_file("runs/1/duration", "2.000\n");
	assert_file_holds("runs/1/started", "Z\n");
	struct node *last = find("last");
	AUTO_FREE char *text = NULL;
	struct op *op = fake_op(0);
	assert_int_equal(last->ops->readlink(last, op, &text), 0);
	assert_string_equal(text, "runs/1");
	fake_op_free(op);
	node_put(last);
	release(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(listing_and_lookup_agree),
		TEST(a_listing_goes_on_where_it_stopped),
		TEST(request_files_get_a_node_for_each_lookup_directories_stay),
		TEST(help_answers_in_every_directory),
		TEST(no_name_can_be_made_where_the_tables_have_none),
		TEST(modes_hold_for_root_too),
		TEST(chmod_truncate_and_touch_do_nothing_and_succeed),
		TEST(the_server_has_a_tree_of_its_own),
		TEST(runs_are_directories_and_sizes_are_true),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
