/*
 * The executors' scripts, compiled in: a sandbox sees no file of ours but sandboxd itself.
 */
#ifndef SANDBOXD_INTERPRETER_SCRIPTS_H
#define SANDBOXD_INTERPRETER_SCRIPTS_H

/* Each ends where the next symbol says. */
extern const char interpreter_python[], interpreter_python_end[];
extern const char interpreter_node[], interpreter_node_end[];

#endif
