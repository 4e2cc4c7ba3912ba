/* route.h: the subcommands of `minim route`, as commands.h has those of minim: argv[0] is the name, the value the exit
 * code. A subcommand is a row of the table in cmd_route.c and a function here. */
#ifndef TOOLS_ROUTE_H
#define TOOLS_ROUTE_H

int route_check(int argc, char **argv);
int route_report(int argc, char **argv);
int route_log(int argc, char **argv);
int route_export(int argc, char **argv);
int route_replay(int argc, char **argv);
int route_train(int argc, char **argv);
int route_eval(int argc, char **argv);
int route_collect(int argc, char **argv);
int route_calibrate(int argc, char **argv);
int route_explain(int argc, char **argv);

#endif
