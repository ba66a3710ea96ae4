/** <module> Deployment as facts and rules

Services, hosts and hooks are declared as facts; what to do on which host, and in which order, is worked out by
rules; the same rules answer questions.  This file is the table of contents: each group is exported by the module it
comes from.  What acts on the world needs the Python package unifyweaver_py; everything else works in plain `swipl`.
*/

:- module(deployment_glue, []).

:- reexport(deployment/declarations,
            [ declare_service/2,            % +Service, +Options
              service_config/2,             % ?Service, ?Options
              undeclare_service/1,          % +Service
              declare_deploy_method/3,      % +Service, +Method, +Options
              deploy_method_config/3,       % ?Service, ?Method, ?Options
              declare_service_sources/2,    % +Service, +Patterns
              service_sources/2,            % ?Service, ?Patterns
              declare_lifecycle_hook/3,     % +Service, +Event, +Action
              lifecycle_hooks/2,            % ?Service, ?Hooks
              declare_service_hosts/2,      % +Service, +Hosts
              service_hosts/2,              % ?Service, ?Hosts
              service_host/3                % ?Service, ?Host, ?Options
            ]).
:- reexport(deployment/rollout,
            [ declare_rollout/2,            % +Service, +Options
              rollout_config/2              % ?Service, ?Options
            ]).
:- reexport(deployment/balancing,
            [ declare_load_balancer/2,      % +Service, +Balancer
              load_balancer_config/2        % ?Service, ?Balancer
            ]).
:- reexport(deployment/security,
            [ validate_security/2,          % +Service, -Errors
              requires_encryption/1,        % +Service
              is_local_service/1            % +Service
            ]).
:- reexport(deployment/ledger,
            [ compute_source_hash/2,        % +Service, -Hash
              release_hash/2,               % +Service, -Hash
              check_for_changes/2,          % +Service, -Changes
              check_for_changes/3,          % +Service, +Host, -Changes
              store_deployed_hash/2,        % +Service, +Hash
              deployed_hash/2,              % ?Service, ?Hash
              deployed_hash/3,              % ?Service, ?Host, ?Hash
              store_rollback_hash/2,        % +Service, +Hash
              rollback_hash/2,              % ?Service, ?Hash
              rollback_hash/3               % ?Service, ?Host, ?Hash
            ]).
:- reexport(deployment/public,
            [ deploy_service/2,             % +Service, -Result
              deploy_service/3,             % +Service, +Options, -Result
              deploy_with_hooks/2,          % +Service, -Result
              deploy_with_rollback/2,       % +Service, -Result
              deploy_with_rollback/3,       % +Service, +Options, -Result
              deploy_to_all_hosts/2,        % +Service, -Results
              deploy_to_all_hosts/3,        % +Service, +Options, -Results
              resume_rollout/2,             % +Service, -Results
              fleet_status/2,               % +Service, -Table
              recover/2,                    % +Service, -Results
              recover/3,                    % +Service, +Options, -Results
              deployment_plan/3,            % +Service, +Options, -Plan
              rollback_service/2,           % +Service, -Result
              rollback_service/3,           % +Service, +Options, -Result
              start_service/2,              % +Service, -Result
              stop_service/2,               % +Service, -Result
              restart_service/2,            % +Service, -Result
              lock_service/2,               % +Service, -Result
              lock_service/3,               % +Service, +Options, -Result
              unlock_service/2,             % +Service, -Result
              lock_status/2,                % +Service, -Status
              graceful_stop/3,              % +Service, +Options, -Result
              drain_connections/3,          % +Service, +Options, -Result
              force_stop_service/3,         % +Service, +Timeout, -Result
              execute_hooks/3,              % +Service, +Event, -Result
              run_health_check/3,           % +Service, +Options, -Result
              wait_for_healthy/3,           % +Service, +Options, -Result
              service_status/2,             % +Service, -Status
              service_status/3,             % +Service, ?Host, -Status
              rebuild_ledger/2              % +Service, -Results
            ]).
:- reexport(deployment/history,
            [ history/3,                    % ?Service, ?Options, -Runs
              run_events/2,                 % +RunId, -Events
              unfinished_runs/2             % ?Service, -Runs
            ]).

:- reexport(deployment/generate,
            [ generate_deploy_script/3,       % +Service, +Options, -Script
              generate_ssh_deploy/3,          % +Service, +Options, -Script
              generate_rollback_script/3,     % +Service, +Options, -Script
              generate_health_check_script/3, % +Service, +Options, -Script
              generate_systemd_unit/3         % +Service, +Options, -Unit
            ]).

:- use_module(deployment/loader, []).
:- use_module(deployment/messages, []).
:- use_module(deployment/narration, []).
